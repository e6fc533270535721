#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;

fn turn(role: &str, content: &str) -> ChatMessage {
    ChatMessage::new(role, content)
}

fn special() -> SpecialTokens {
    SpecialTokens { bos: Some("<s>".into()), eos: Some("</s>".into()), ..Default::default() }
}

fn user(source: &str, content: &str) -> Result<String, String> {
    let turns = [turn("system", "Be brief."), turn("user", content), turn("assistant", " yes ")];
    render_user_template(source, (&turns).into(), true, &special()).map_err(|error| error.to_string())
}

fn refused(source: &str) -> String {
    user(source, "hi").expect_err(source)
}

#[test]
fn a_model_template_sees_turns_special_tokens_and_the_standing_date() {
    let source = "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m['content'].strip() }}{{ eos_token }}{% endfor %}\
                  {% if add_generation_prompt %}>{% endif %}{{ strftime_now('%d %b %Y') }}{{ pad_token }}";
    let template = ModelTemplate::new(source.to_owned()).unwrap();
    let turns = [turn("user", " a "), turn("assistant", "b")];
    assert_eq!(
        template.render((&turns).into(), true, &special()).unwrap(),
        "<s>[user]a</s>[assistant]b</s>>26 Jul 2024"
    );
    assert_eq!(template.source(), source);
}

#[test]
fn a_model_template_that_raises_says_why() {
    let template = ModelTemplate::new("{{ raise_exception('roles must alternate') }}".to_owned()).unwrap();
    assert!(
        template
            .render(Conversation { messages: &[], tools: &[] }, false, &special())
            .unwrap_err()
            .to_string()
            .contains("roles must alternate")
    );
    assert!(ModelTemplate::new("{% if %}".to_owned()).err().unwrap().to_string().contains("compiling"));
}

#[test]
fn a_user_template_can_be_checked_before_it_sees_a_row() {
    assert!(check_user_template(LLAMA3).is_ok());
    let refused = |source: &str| check_user_template(source).expect_err(source).to_string();
    assert!(refused("a\n{% for m in messages %}").contains("line 2"), "{}", refused("a\n{% for m in messages %}"));
    assert!(refused("{{ messages[ }}").contains("line 1"));
    assert!(refused(&"x".repeat(65 << 10)).contains("bytes"));
}

/// The shape of Llama 3's own template, which users begin from.
const LLAMA3: &str = "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = \
    '<|start|>' + message['role'] + '<|end|>\n\n' + message['content'] | trim + '<|eot|>' %}{% if loop.index0 == 0 %}\
    {% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}\
    {{ '<|start|>assistant<|end|>\n\n' }}{% endif %}";

#[test]
fn a_user_template_may_do_what_chat_templates_do() {
    assert_eq!(
        user(LLAMA3, "hi").unwrap(),
        "<s><|start|>system<|end|>\n\nBe brief.<|eot|><|start|>user<|end|>\n\nhi<|eot|><|start|>assistant<|end|>\n\nyes<|eot|>\
         <|start|>assistant<|end|>\n\n"
    );
    let source = "{% if messages[0]['role'] == 'system' %}{% set system = messages[0].content %}{% set rest = messages[1:] %}\
                  {% else %}{% set rest = messages %}{% endif %}{{ system | upper }}|{{ rest | length }}|{{ rest[-1].content.strip() }}\
                  |{{ rest[0] | tojson }}|{{ 'x' if missing is defined else 'y' }}|{{ rest[0].get('role') }}";
    assert_eq!(user(source, "hi").unwrap(), r#"BE BRIEF.|2|yes|{"role": "user", "content": "hi"}|y|user"#);
    assert_eq!(user("{{ ['é<', 1, none] | tojson }}", "hi").unwrap(), r#"["é<", 1, null]"#);
    // Lines with a statement alone leave no line, as in transformers.
    assert_eq!(
        user("{% for m in messages %}\n  {% if m.role == 'user' %}\nU\n  {% endif %}\n{% endfor %}\n", "hi").unwrap(),
        "U\n"
    );
}

#[test]
fn a_user_template_that_raises_or_is_wrong_says_where() {
    assert!(refused("a\n{{ raise_exception('no tools here') }}").contains("line 2: no tools here"));
    assert!(refused("{% for %}").contains("line 1"));
    assert!(refused("{{ messages | join }}").contains("join"));
    assert!(refused("{{ namespace(x=1) }}").contains("namespace"));
    assert!(refused(&"x".repeat(70_000)).contains("at most 65536"));
}

#[test]
fn text_that_could_grow_without_a_bound_is_refused_before_it_runs() {
    let doubling: String = (0..40).map(|_| "{% set x = x ~ x %}").collect();
    assert!(refused(&format!("{{% set x = messages[1].content %}}{doubling}{{{{ x }}}}")).contains("too much text"));
    assert!(refused("{% for m in messages %}{% set x = x ~ x %}{% endfor %}").contains("reads `x` in a loop"));
    assert!(refused("{{ 'x' * 100000000 }}").contains("multiply"));
    assert!(refused("{% macro f(x) %}{{ f(x ~ x) }}{% endmacro %}{{ f('a') }}").contains("`macro`"));
    assert!(refused("{% for m in messages recursive %}{{ loop(m ~ m) }}{% endfor %}").contains("recursive"));
    assert!(refused("{% set x %}a{% endset %}").contains("endset"));
    assert!(refused("{% include 'other' %}").contains("`include`"));
    let nested: String = (0..12).map(|_| "{% for a in [loop.previtem ~ loop.previtem] %}").collect();
    let nested = format!("{{% for a in messages %}}{nested}{}{{% endfor %}}", "{% endfor %}".repeat(12));
    assert!(refused(&nested).contains("too much text"));
    let quoted = "'\"'".to_owned() + &" | tojson".repeat(30);
    assert!(refused(&format!("{{{{ {quoted} }}}}")).contains("too much text"));
    let listed = (0..30).fold("'\"'".to_owned(), |inner, _| format!("([{inner}] ~ '')"));
    assert!(refused(&format!("{{{{ {listed} }}}}")).contains("too much text"));
}

#[test]
fn steps_and_output_are_bounded() {
    let loops = "{% for a in messages[1].content %}{% for b in messages[1].content %}{% endfor %}{% endfor %}";
    assert!(user(loops, &"x".repeat(5000)).unwrap_err().contains("steps"));
    let long = "y".repeat(1 << 20);
    let many = "{% for a in messages[0].content %}{{ messages[1].content }}{{ messages[1].content }}{{ messages[1].content }}\
                {{ messages[1].content }}{{ messages[1].content }}{% endfor %}";
    assert!(user(many, &long).unwrap_err().contains("bytes"));
    assert_eq!(user("{{ messages[1].content }}", &long).unwrap().len(), 1 << 20);
    let joined = format!("{{{{ {} }}}}", vec!["messages[1].content"; 60].join(" ~ "));
    assert!(user(&joined, &"z".repeat(8 << 20)).unwrap_err().contains("too long"));
}

/// On a thread with the small stack that worker threads have.
#[test]
fn deep_nesting_is_an_error() {
    let deep = [
        (format!("{{{{ {}1{} }}}}", "(".repeat(20_000), ")".repeat(20_000)), "512 parts"),
        (format!("{{{{ messages{} }}}}", ".a".repeat(30_000)), "512 parts"),
        (format!("{{{{ {}1 }}}}", "not ".repeat(10_000)), "512 parts"),
        ("{% if true %}".repeat(2000) + &"{% endif %}".repeat(2000), "400 statements"),
        ("{% if true %}".to_owned() + &"{% elif a %}".repeat(4000) + "{% endif %}", "400 statements"),
    ];
    for (source, named) in deep {
        assert!(refused(&source).contains(named), "{named}");
    }
    // Just below the limits, everything still ends in text or in an error.
    for source in [
        format!("{{{{ messages{} }}}}", ".a".repeat(250)),
        format!("{{{{ {}1{} }}}}", "(".repeat(250), ")".repeat(250)),
        format!("{{{{ {}1 }}}}", "not ".repeat(500)),
        "{% if true %}".repeat(199) + &"{% endif %}".repeat(199),
        "{% if true %}".to_owned() + &"{% elif a %}".repeat(390) + "{% endif %}",
        "{% for a in messages %}".repeat(199) + &"{% endfor %}".repeat(199),
    ] {
        let _ended = user(&source, "hi");
    }
}
