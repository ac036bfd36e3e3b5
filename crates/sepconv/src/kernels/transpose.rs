//! Rows that become columns.

/// So many rows and columns at a time, of which each cache line is used up while it is near.
const AT_ONCE: usize = 8;

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
            let (last_row, last_column) = (rows.min(first_row + AT_ONCE), columns.min(first_column + AT_ONCE));
            let element = |row: usize, column: usize| {
                // SAFETY: the caller's promise.
                unsafe {
                    let value = *from.offset(row as isize * from_stride).add(column);
                    to.add(column * to_stride + row).write(convert(value));
                }
            };
            if [last_row - first_row, last_column - first_column] == [AT_ONCE; 2] {
                // Of lengths that the compiler knows.
                (0..AT_ONCE).for_each(|column| {
                    (0..AT_ONCE).for_each(|row| element(first_row + row, first_column + column));
                });
            } else {
                (first_column..last_column)
                    .for_each(|column| (first_row..last_row).for_each(|row| element(row, column)));
            }
        }
    }
}
