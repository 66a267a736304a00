//! What becomes of each kind of output.

use transform::{Pipeline, Worker};

use crate::common::{constant_output, deploy, guest, host, numbered, run};

#[test]
fn a_batch_that_is_kept_passes_untouched() {
    let host = host();
    let keep = deploy(&host, &guest(&constant_output(&[0, 0, 0, 0, 5, 0, 0, 0])));
    let batch = numbered(5);
    let output = run(&mut Worker::new(&host), &Pipeline::new(vec![keep]), &batch).unwrap();
    assert_eq!(output.own.unwrap().bytes().as_ptr(), batch.bytes().as_ptr());
    assert_eq!((output.books.kept, output.books.stored), (5, 5));
}
