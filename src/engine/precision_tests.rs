//! Whole runs on a base model that is stored in few bits.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use finetuned_protocol::{
    engine::{EXIT_OK, EngineCommand, EngineEvent},
    precision::BasePrecision,
    spec::TrainingSpec,
};

use crate::{testing::spec, testing_folder::Folder};

fn settings(base_precision: BasePrecision) -> TrainingSpec {
    TrainingSpec { base_precision, ..spec() }
}

#[test]
fn every_precision_trains_exports_and_resumes_to_the_byte() {
    let base_loss = |precision| {
        let whole = Folder::new(settings(precision));
        let undisturbed = whole.run();
        let EngineEvent::Finished { evaluation, .. } = undisturbed.last() else { panic!("{:?}", undisturbed.last()) };
        assert!(evaluation.tuned.loss < evaluation.base.loss, "{precision}: {evaluation:?}");
        let folder = Folder::new(settings(precision));
        let first = folder
            .run_until(EngineCommand::StopWithCheckpoint, |event| matches!(event, EngineEvent::Step { step: 3, .. }));
        assert_eq!((first.status, first.last()), (EXIT_OK, &EngineEvent::Stopped { step: 3 }));
        let second = folder.run();
        assert_eq!([first.losses(), second.losses()].concat(), undisturbed.losses(), "{precision}");
        assert!(folder.adapter() == whole.adapter(), "{precision}: the resumed adapter is another");
        evaluation.base.loss
    };
    let losses = [BasePrecision::F32, BasePrecision::Bf16, BasePrecision::Int8, BasePrecision::Nf4].map(base_loss);
    assert!(losses.windows(2).all(|pair| pair[0] != pair[1]), "the base is the same in {losses:?}");
    // The model is tiny and random, so little is lost; but something is.
    assert!(losses.iter().all(|loss| (loss - losses[0]).abs() < 0.05), "{losses:?}");
}

#[test]
fn another_precision_is_another_job() {
    let mut folder = Folder::new(settings(BasePrecision::Nf4));
    folder.run_until(EngineCommand::StopWithCheckpoint, |event| matches!(event, EngineEvent::Step { step: 1, .. }));
    folder.job.spec.base_precision = BasePrecision::Int8;
    folder.write_job();
    let ran = folder.run();
    let EngineEvent::Failed { error, .. } = ran.last() else { panic!("{:?}", ran.last()) };
    assert_eq!(error.code, finetuned_protocol::error::ErrorCode::InvalidSettings);
}
