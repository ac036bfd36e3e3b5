//! Rows that become columns.

/// So many rows and columns at a time, of which each cache line is used up while it is near.
const AT_ONCE: usize = 16;

/// Element (row, column) of `from` into (column, row) of `to`; each is a place and the elements from one row to the next.
///
/// # Safety
/// `from` has so many rows and columns, `to` as many columns and rows, writable.
pub unsafe fn transpose<S: Copy, T>(
    (from, from_stride): (*const S, isize),
    (to, to_stride): (*mut T, usize),
    [rows, columns]: [usize; 2],
    convert: impl Fn(S) -> T,
) {
    for first_row in (0..rows).step_by(AT_ONCE) {
        for first_column in (0..columns).step_by(AT_ONCE) {
            for column in first_column..columns.min(first_column + AT_ONCE) {
                for row in first_row..rows.min(first_row + AT_ONCE) {
                    // SAFETY: the caller's promise.
                    unsafe {
                        let value = *from.offset(row as isize * from_stride).add(column);
                        to.add(column * to_stride + row).write(convert(value));
                    }
                }
            }
        }
    }
}
