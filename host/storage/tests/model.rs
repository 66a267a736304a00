//! Random operations, reopening among them, against a plain map.

mod common;

use common::{
    model::{Model, Operation, operation},
    small,
};
use proptest::prelude::*;
use storage::{Store, StoreOptions};

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, max_shrink_iters: 200, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn a_store_behaves_like_a_map(
        operations in prop::collection::vec(operation(), 1..120),
        tail_bytes_max in prop::sample::select(vec![0, 50_000, 32 << 20]),
        segment_entries_max in prop::sample::select(vec![20, 1_000]),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let options = StoreOptions { tail_bytes_max, segment_entries_max, ..small() };
        let mut store = Store::open(dir.path(), options.clone()).unwrap();
        let mut model = Model::default();
        model.run(&store, &Operation::Create);
        for operation in &operations {
            match operation {
                Operation::Reopen => {
                    drop(store);
                    store = Store::open(dir.path(), options.clone()).unwrap();
                    model.check(&store);
                }
                operation => model.run(&store, operation),
            }
        }
        model.check(&store);
    }
}
