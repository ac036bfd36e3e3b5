//! A table of which most rows are like the one before, and which therefore takes little memory and time.

/// Rows of values: so many at a time that are alike.
pub struct Table<V>(Vec<(usize, Vec<V>)>);

impl<V: Clone + PartialEq> Table<V> {
    /// The same value everywhere.
    pub fn new(value: V, [rows, columns]: [usize; 2]) -> Self {
        Self(vec![(rows, vec![value; columns])])
    }

    /// How many successive rows are alike, and what each holds.
    pub fn runs(&self) -> impl Iterator<Item = (usize, &[V])> {
        self.0.iter().map(|(rows, row)| (*rows, row.as_slice()))
    }

    pub fn rows(&self) -> impl Iterator<Item = &[V]> {
        self.runs().flat_map(|(rows, row)| std::iter::repeat_n(row, rows))
    }

    /// Each value of the rows that are alike once.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.0.iter_mut().flat_map(|(_, row)| row)
    }

    /// Changes each value by the one that stands in its place; equal ones say the same.
    pub fn update<'a, W: PartialEq + 'a>(
        &mut self,
        mut with: impl Iterator<Item = &'a [W]>,
        mut update: impl FnMut(&mut V, &W),
    ) {
        for (rows, row) in std::mem::take(&mut self.0) {
            let mut before: Option<&[W]> = None;
            for with in with.by_ref().take(rows) {
                if let (true, Some((rows, _))) = (before == Some(with), self.0.last_mut()) {
                    *rows += 1;
                    continue;
                }
                before = Some(with);
                let mut row = row.clone();
                row.iter_mut().zip(with).for_each(|(value, with)| update(value, with));
                match self.0.last_mut() {
                    Some((rows, last)) if *last == row => *rows += 1,
                    _ => self.0.push((1, row)),
                }
            }
        }
    }
}
