//! Every setting of the optimiser, the schedule and what stands beside them shows its effect, against a closed form.

use std::{collections::BTreeMap, f64::consts::PI};

use anyhow::Result;
use finetuned_tests::{Service, rows};
use serde_json::{Value, json};

use crate::knobs::{READABLE_RATE, ROWS, Run, close, first_gradients, norm, readable, service};

/// B of each adapted module as rows, by name: `[out][r]`.
async fn matrices(run: &Run, matrix: &str) -> Result<BTreeMap<String, Vec<Vec<f64>>>> {
    let (shapes, tensors) = (run.shapes().await?, run.tensors().await?);
    let named = tensors.into_iter().filter(|(name, _)| name.contains(matrix));
    Ok(named
        .map(|(name, values)| {
            let rows = values.chunks(shapes[&name][1] as usize).map(<[f64]>::to_vec).collect();
            (name, rows)
        })
        .collect())
}

/// The gradients of B behind a first step of AdamW, as [`first_gradients`].
async fn gradients_of_b(service: &Service, rows: &str) -> Result<BTreeMap<String, Vec<Vec<f64>>>> {
    let plain = Run::of(service, rows, readable(1, json!({}))).await?;
    let mut gradients = matrices(&plain, "lora_B").await?;
    for value in gradients.values_mut().flatten().flatten() {
        *value = -(*value / READABLE_RATE) / (1.0 - (*value / READABLE_RATE).abs());
    }
    Ok(gradients)
}

/// A first step by another optimiser, without AdamW's settings.
fn first_step(optimizer: Value) -> Value {
    let mut settings = readable(1, json!({}));
    settings["optimizer"] = json!({"learning_rate": 0.25, "max_grad_norm": 1e6});
    settings["optimizer"].as_object_mut().unwrap().extend(optimizer.as_object().unwrap().clone());
    settings
}

fn product(a: &[Vec<f64>], b: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let dot = |row: &Vec<f64>, column: usize| row.iter().zip(b).map(|(x, other)| x * other[column]).sum();
    a.iter().map(|row| (0..b[0].len()).map(|column| dot(row, column)).collect()).collect()
}

fn transposed(a: &[Vec<f64>]) -> Vec<Vec<f64>> {
    (0..a[0].len()).map(|column| a.iter().map(|row| row[column]).collect()).collect()
}

/// Five Newton-Schulz iterations of Muon's quintic on a matrix with more rows than columns.
fn orthogonalised(matrix: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let size = norm(&matrix.concat());
    let mut x: Vec<Vec<f64>> = matrix.iter().map(|row| row.iter().map(|value| value / size).collect()).collect();
    for _ in 0..5 {
        let gram = product(&transposed(&x), &x);
        let square = product(&gram, &gram);
        let (cubic, quintic) = (product(&x, &gram), product(&x, &square));
        for ((row, cubic), quintic) in x.iter_mut().zip(&cubic).zip(&quintic) {
            for ((value, cubic), quintic) in row.iter_mut().zip(cubic).zip(quintic) {
                *value = 3.4445 * *value - 4.7750 * cubic + 2.0315 * quintic;
            }
        }
    }
    x
}

#[tokio::test(flavor = "multi_thread")]
async fn other_optimisers_take_their_first_step() -> Result<()> {
    let (service, rows) = (service().await?, rows::alpaca(ROWS));
    let gradients = gradients_of_b(&service, &rows).await?;
    let mean = |values: &mut dyn Iterator<Item = f64>| -> f64 {
        let (count, sum) = values.fold((0.0, 0.0), |(count, sum), value| (count + 1.0, sum + value));
        sum / count
    };

    let sgd = Run::of(&service, &rows, first_step(json!({"type": "sgd", "momentum": 0.5, "nesterov": true}))).await?;
    assert_eq!(sgd.job["effective"]["optimizer"]["type"], "sgd");
    for (name, moved) in matrices(&sgd, "lora_B").await? {
        // Nesterov's first step goes by the gradient and the momentum of it.
        let expected: Vec<f64> = gradients[&name].concat().iter().map(|g| -0.25 * 1.5 * g).collect();
        close(&moved.concat(), &expected, 1e-5);
    }

    // B is zero, so that its size counts as `epsilon_scale`; the rate is below 1 / sqrt(1).
    let settings = json!({"type": "adafactor", "epsilon_scale": 0.5, "clipping_threshold": 1000});
    for (name, moved) in matrices(&Run::of(&service, &rows, first_step(settings)).await?, "lora_B").await? {
        let squares: Vec<Vec<f64>> = gradients[&name].iter().map(|row| row.iter().map(|g| g * g).collect()).collect();
        let by_row: Vec<f64> = squares.iter().map(|row| mean(&mut row.iter().copied())).collect();
        let by_column: Vec<f64> = transposed(&squares).iter().map(|row| mean(&mut row.iter().copied())).collect();
        let overall = mean(&mut by_row.iter().copied());
        let mut expected = Vec::new();
        for (row, row_mean) in gradients[&name].iter().zip(&by_row) {
            for (g, column_mean) in row.iter().zip(&by_column) {
                expected.push(-0.25 * 0.5 * g / (row_mean * column_mean / overall).sqrt());
            }
        }
        close(&moved.concat(), &expected, 1e-3);
    }

    let muon = Run::of(&service, &rows, first_step(json!({"type": "muon", "scale": "original"}))).await?;
    for (name, moved) in matrices(&muon, "lora_B").await? {
        let shape = (moved.len() as f64 / moved[0].len() as f64).sqrt();
        let expected: Vec<f64> = orthogonalised(&gradients[&name]).concat().iter().map(|x| -0.25 * shape * x).collect();
        close(&moved.concat(), &expected, 1e-3);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn moments_take_less_memory_and_stay_near() -> Result<()> {
    let (service, rows) = (service().await?, rows::alpaca(ROWS));
    let run = |steps: u32, moments: &str| {
        let mut settings = readable(steps, json!({"moments": moments, "learning_rate": 1e-2, "epsilon": 1e-3}));
        settings["lora"]["r"] = json!(128);
        Run::of(&service, &rows, settings)
    };
    let (first, exact) = (run(1, "f32").await?, run(4, "f32").await?);
    let parameters = exact.tensors().await?.values().map(Vec::len).sum::<usize>() as u64;
    let memory = |run: &Run| run.job["estimate"]["peak_memory_bytes"].as_u64().unwrap();
    for (moments, bytes) in [("bf16", 4 * parameters), ("8bit", 2 * (parameters + 4 * parameters.div_ceil(256)))] {
        // The first step does not read what it wrote.
        assert!(run(1, moments).await?.weights().await? == first.weights().await?, "{moments}");
        let near = run(4, moments).await?;
        assert_eq!(near.job["effective"]["optimizer"]["moments"], moments);
        assert_eq!(memory(&exact) - memory(&near), 8 * parameters - bytes, "{moments}");
        let (near, exact) = (near.of_matrix("lora_B").await?, exact.of_matrix("lora_B").await?);
        let difference: Vec<f64> = near.iter().zip(&exact).map(|(a, b)| a - b).collect();
        let share = norm(&difference) / norm(&exact);
        assert!(share > 0.0 && share < 0.1, "{moments}: {share}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn wsd_holds_its_peak_and_then_decays() -> Result<()> {
    let (service, rows) = (service().await?, rows::alpaca(ROWS));
    let (peak, steps, warmup, decay) = (1e-3, 10, 2, 4);
    let shapes: [(&str, &dyn Fn(f64) -> f64); 3] =
        [("linear", &|t| 1.0 - t), ("cosine", &|t| 0.5 * (1.0 + (PI * t).cos())), ("1-sqrt", &|t| 1.0 - t.sqrt())];
    for (name, shape) in shapes {
        let schedule = json!({"type": "wsd", "warmup_ratio": 0.2, "decay_ratio": 0.4, "decay_type": name});
        let settings = json!({"max_steps": steps, "optimizer": {"learning_rate": peak}, "schedule": schedule});
        let run = Run::of(&service, &rows, settings).await?;
        let expected: Vec<f64> = (0..steps)
            .map(|step| match step {
                step if step < warmup => peak * f64::from(step) / f64::from(warmup),
                step if step < steps - decay => peak,
                step => peak * shape(f64::from(step - (steps - decay)) / f64::from(decay)),
            })
            .collect();
        close(&run.values("learning_rate").await?, &expected, 1e-9);
        assert_eq!(run.job["effective"]["schedule"]["decay_steps"], decay);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn smoothing_and_noise_change_training_alone() -> Result<()> {
    let (service, rows) = (service().await?, rows::alpaca(ROWS));
    let run = |extra: Value| {
        let mut settings = readable(1, json!({}));
        settings.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        Run::of(&service, &rows, settings)
    };
    let plain = run(json!({})).await?;
    let loss = |values: Vec<f64>| values[0];
    let first = loss(plain.values("train_loss").await?);
    let gradients = first_gradients(&plain.tensors().await?);

    // The smoothed loss is `(1 - e) * loss + e * rest`, so loss and gradient go with e in a straight line.
    let (one, three) = (run(json!({"label_smoothing": 0.1})).await?, run(json!({"label_smoothing": 0.3})).await?);
    let (small, large) =
        (loss(one.values("train_loss").await?) - first, loss(three.values("train_loss").await?) - first);
    assert!(small.abs() > 1e-4, "smoothing has no effect");
    close(&[large], &[3.0 * small], 1e-5);
    let expected: Vec<f64> =
        first_gradients(&one.tensors().await?).iter().zip(&gradients).map(|(one, g)| g + 3.0 * (one - g)).collect();
    close(&first_gradients(&three.tensors().await?), &expected, 1e-5);

    // Small noise moves the loss in a straight line, too, and the same noise is drawn whatever is computed together.
    let (noisy, double) =
        (run(json!({"neftune_noise_alpha": 0.2})).await?, run(json!({"neftune_noise_alpha": 0.4})).await?);
    let (small, large) =
        (loss(noisy.values("train_loss").await?) - first, loss(double.values("train_loss").await?) - first);
    assert!(small.abs() > 1e-5, "noise has no effect: {small}");
    close(&[large], &[2.0 * small], 0.2 * small.abs());
    let split = run(json!({"neftune_noise_alpha": 0.4, "micro_batch_size": 1})).await?;
    close(&split.values("train_loss").await?, &double.values("train_loss").await?, 1e-5);

    for run in [&one, &double] {
        assert_eq!(run.job["evaluation"]["base"], plain.job["evaluation"]["base"], "evaluations are neither");
    }
    assert_eq!(one.job["effective"]["label_smoothing"], 0.1);
    assert_eq!(double.job["effective"]["neftune_noise_alpha"], 0.4);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn early_stopping_exports_the_best_and_tells() -> Result<()> {
    let (service, rows) = (service().await?, rows::alpaca(ROWS));
    let settings = json!({
        "max_steps": 60, "evaluate_every": 2, "optimizer": {"learning_rate": 0.1},
        "early_stopping": {"patience": 2, "min_delta": 0.0},
    });
    let run = Run::of(&service, &rows, settings).await?;
    let exported = &run.job["evaluation"]["exported_weights"];
    let losses = run.series("valid_loss").await?;
    let (best, value) =
        losses.iter().copied().filter(|(step, _)| *step > 0).min_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
    assert_eq!((&exported["type"], &exported["metric"]), (&json!("best"), &json!("valid_loss")), "{losses:?}");
    assert_eq!((exported["step"].as_u64(), exported["stopped_at_step"].as_u64()), (Some(best), Some(best + 4)));
    assert_eq!(losses.last().unwrap().0, best + 4);
    close(&[run.job["evaluation"]["tuned"]["loss"].as_f64().unwrap()], &[value], 1e-9);
    let events = run.client.get(&format!("/v1/fine_tuning/jobs/{}/events?limit=100", run.id)).await?.success()?;
    let told = events["data"].as_array().unwrap().iter().any(|event| {
        event["message"].as_str().unwrap().starts_with(&format!("Early stopping after step {}", best + 4))
    });
    assert!(told, "{events}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn averaging_exports_the_mean_of_the_last_checkpoints() -> Result<()> {
    let (service, rows) = (service().await?, rows::alpaca(ROWS));
    // At a constant rate, a shorter run's last weights are the longer one's on the way.
    let run = |steps: u32, extra: Value| {
        let mut settings = readable(steps, json!({}));
        settings["checkpoint_every"] = json!(2);
        settings.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        Run::of(&service, &rows, settings)
    };
    let mean = run(5, json!({"weight_averaging": {"last_checkpoints": 3}})).await?;
    assert_eq!(mean.job["evaluation"]["exported_weights"], json!({"type": "mean", "steps": [2, 4, 5]}));
    let mut sums: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for steps in [2, 4, 5] {
        for (name, values) in run(steps, json!({})).await?.tensors().await? {
            let sum = sums.entry(name).or_insert_with(|| vec![0.0; values.len()]);
            sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += value / 3.0);
        }
    }
    for (name, values) in mean.tensors().await? {
        close(&values, &sums[&name], 1e-6);
    }
    Ok(())
}
