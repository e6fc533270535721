//! A bound on how much text a user's template can make of its input, found before it runs.
//!
//! Fuel limits how many steps a template takes, not how much a step makes: forty steps of `x ~ x` fill any memory. So each
//! expression gets a weight, the number of whole inputs whose text it may hold at most. Whatever could grow without a
//! bound that can be read off the source is refused: multiplication of texts, macros, and variables that build on
//! themselves in a loop.

use std::collections::HashMap;

use minijinja::machinery::ast::{BinOpKind, CallArg, Expr, ForLoop, Stmt};

/// Most whole inputs that the text of one expression may hold.
const HEAVIEST: u64 = 64;

/// Weights of variables that the template itself has set; the others are inputs, of weight 1.
type Weights = HashMap<String, u64>;

/// Weight of a variable that builds on its own value of the round before.
const UNBOUNDED: u64 = u64::MAX;

/// Refuses a template whose values may grow beyond [`HEAVIEST`] inputs; gives the weight of its heaviest expression.
pub(super) fn check(template: &Stmt<'_>) -> Result<u64, String> {
    let mut checker = Checker { heaviest: 1 };
    let Stmt::Template(template) = template else { return Err("is no template".to_owned()) };
    checker.body(&template.children, &mut Weights::new())?;
    Ok(checker.heaviest)
}

struct Checker {
    heaviest: u64,
}

impl Checker {
    fn body(&mut self, body: &[Stmt<'_>], weights: &mut Weights) -> Result<(), String> {
        body.iter().try_for_each(|statement| self.statement(statement, weights))
    }

    fn statement(&mut self, statement: &Stmt<'_>, weights: &mut Weights) -> Result<(), String> {
        match statement {
            Stmt::EmitRaw(_) | Stmt::Continue(_) | Stmt::Break(_) => Ok(()),
            Stmt::EmitExpr(emit) => self.expression(&emit.expr, weights).map(|_| ()),
            Stmt::Set(set) => {
                let weight = self.expression(&set.expr, weights)?;
                assign(&set.target, weight, weights)
            }
            Stmt::IfCond(condition) => {
                self.expression(&condition.expr, weights)?;
                let mut other = weights.clone();
                self.body(&condition.true_body, weights)?;
                self.body(&condition.false_body, &mut other)?;
                for (name, weight) in other {
                    let known = weights.entry(name).or_insert(weight);
                    *known = weight.max(*known);
                }
                Ok(())
            }
            Stmt::ForLoop(repeat) => self.repeat(repeat, weights),
            _ => Err(format!("may hold `if`, `for` and `set` alone, not `{}`", statement_name(statement))),
        }
    }

    /// A loop's body may be run any number of times, so a variable set in it is unbounded until it is set anew.
    fn repeat(&mut self, repeat: &ForLoop<'_>, weights: &mut Weights) -> Result<(), String> {
        if repeat.recursive {
            return Err("may not hold a `recursive` loop".to_owned());
        }
        let weight = self.expression(&repeat.iter, weights)?;
        let mut inner = weights.clone();
        assigned(&repeat.body, &mut |target| assign(target, UNBOUNDED, &mut inner))?;
        assign(&repeat.target, weight, &mut inner)?;
        // `loop.previtem` and its like hold items, too.
        inner.insert("loop".to_owned(), weight.max(1));
        if let Some(filter) = &repeat.filter_expr {
            self.expression(filter, &inner)?;
        }
        self.body(&repeat.body, &mut inner)?;
        self.body(&repeat.else_body, weights)
    }

    fn all(&mut self, parts: &[Expr<'_>], weights: &Weights) -> Result<u64, String> {
        parts.iter().try_fold(0_u64, |sum, part| Ok(sum.saturating_add(self.expression(part, weights)?)))
    }

    fn arguments(&mut self, arguments: &[CallArg<'_>], weights: &Weights) -> Result<u64, String> {
        arguments.iter().try_fold(0_u64, |sum, argument| match argument {
            CallArg::Pos(expr) | CallArg::Kwarg(_, expr) => Ok(sum.saturating_add(self.expression(expr, weights)?)),
            CallArg::PosSplat(_) | CallArg::KwargSplat(_) => Err("may not spread arguments".to_owned()),
        })
    }

    fn expression(&mut self, expr: &Expr<'_>, weights: &Weights) -> Result<u64, String> {
        let weight = self.weigh(expr, weights)?;
        if weight > HEAVIEST {
            return Err(format!(
                "joins or stores too much text in one expression: more than {HEAVIEST} times its input"
            ));
        }
        self.heaviest = self.heaviest.max(weight);
        Ok(weight)
    }

    fn weigh(&mut self, expr: &Expr<'_>, weights: &Weights) -> Result<u64, String> {
        let two = |a: u64, b: u64| a.saturating_add(b);
        Ok(match expr {
            // All constants together are no longer than the source, which counts as input.
            Expr::Const(_) => 0,
            Expr::Var(variable) => match weights.get(variable.id) {
                Some(&UNBOUNDED) => {
                    return Err(format!("reads `{}` in a loop before it is set in the same round", variable.id));
                }
                Some(&weight) => weight,
                None => 1,
            },
            Expr::UnaryOp(unary) => self.expression(&unary.expr, weights)?,
            Expr::BinOp(binary) => {
                if matches!(binary.op, BinOpKind::Mul | BinOpKind::Pow) {
                    return Err("may not multiply".to_owned());
                }
                two(self.expression(&binary.left, weights)?, self.expression(&binary.right, weights)?)
            }
            Expr::Compare(compare) => {
                let mut sum = self.expression(&compare.expr, weights)?;
                for operand in &compare.ops {
                    sum = two(sum, self.expression(&operand.expr, weights)?);
                }
                sum
            }
            Expr::IfExpr(choice) => {
                self.expression(&choice.test_expr, weights)?;
                let yes = self.expression(&choice.true_expr, weights)?;
                let no = choice.false_expr.as_ref().map_or(Ok(0), |expr| self.expression(expr, weights))?;
                yes.max(no)
            }
            Expr::Filter(filter) => {
                let subject = filter.expr.as_ref().map_or(Ok(0), |expr| self.expression(expr, weights))?;
                two(subject, self.arguments(&filter.args, weights)?).max(1).saturating_mul(factor(filter.name))
            }
            Expr::Test(test) => two(self.expression(&test.expr, weights)?, self.arguments(&test.args, weights)?),
            Expr::GetAttr(attribute) => self.expression(&attribute.expr, weights)?,
            Expr::GetItem(item) => {
                self.expression(&item.subscript_expr, weights)?;
                self.expression(&item.expr, weights)?
            }
            Expr::Slice(slice) => {
                for bound in [&slice.start, &slice.stop, &slice.step].into_iter().flatten() {
                    self.expression(bound, weights)?;
                }
                self.expression(&slice.expr, weights)?
            }
            Expr::Call(call) => {
                let method = if let Expr::GetAttr(attribute) = &call.expr { factor(attribute.name) } else { 1 };
                let sum = two(self.expression(&call.expr, weights)?, self.arguments(&call.args, weights)?);
                sum.max(1).saturating_mul(method)
            }
            // Written out, what is inside a list is escaped.
            Expr::List(list) => self.all(&list.items, weights)?.max(1).saturating_mul(ESCAPED),
            Expr::Map(map) => {
                two(self.all(&map.keys, weights)?, self.all(&map.values, weights)?).max(1).saturating_mul(ESCAPED)
            }
        })
    }
}

/// Most bytes that one byte becomes when it is escaped.
const ESCAPED: u64 = 6;

/// Most bytes that a filter or method makes of one.
fn factor(name: &str) -> u64 {
    match name {
        "tojson" => ESCAPED,
        "upper" | "lower" | "title" | "capitalize" => 3,
        _ => 1,
    }
}

/// Gives a variable, or each of a tuple of them, a weight.
fn assign(target: &Expr<'_>, weight: u64, weights: &mut Weights) -> Result<(), String> {
    match target {
        Expr::Var(variable) => {
            weights.insert(variable.id.to_owned(), weight.max(1));
            Ok(())
        }
        Expr::List(list) => list.items.iter().try_for_each(|item| assign(item, weight, weights)),
        _ => Err("may set plain variables alone".to_owned()),
    }
}

/// Every target that is set somewhere in a loop's body, inner loops' own included.
fn assigned<'a>(body: &'a [Stmt<'a>], each: &mut dyn FnMut(&Expr<'a>) -> Result<(), String>) -> Result<(), String> {
    for statement in body {
        match statement {
            Stmt::Set(set) => each(&set.target)?,
            Stmt::IfCond(condition) => {
                assigned(&condition.true_body, each)?;
                assigned(&condition.false_body, each)?;
            }
            Stmt::ForLoop(repeat) => {
                assigned(&repeat.body, each)?;
                assigned(&repeat.else_body, each)?;
            }
            _ => {}
        }
    }
    Ok(())
}

fn statement_name(statement: &Stmt<'_>) -> &'static str {
    match statement {
        Stmt::WithBlock(_) => "with",
        Stmt::SetBlock(_) => "set ... endset",
        Stmt::AutoEscape(_) => "autoescape",
        Stmt::FilterBlock(_) => "filter",
        Stmt::Block(_) => "block",
        Stmt::Import(_) | Stmt::FromImport(_) => "import",
        Stmt::Extends(_) => "extends",
        Stmt::Include(_) => "include",
        Stmt::Macro(_) => "macro",
        Stmt::CallBlock(_) => "call",
        _ => "this statement",
    }
}
