//! CSV: a table, its first row the header.

use super::{ExtractError, Extracted, Limits, writer::Writer};

/// What may stand between cells. The one that is there most evenly is taken.
const DELIMITERS: [u8; 4] = [b',', b';', b'\t', b'|'];

/// Records that decide which it is.
const RECORDS_LOOKED_AT: usize = 20;

pub(super) fn extract(text: &str, limits: &Limits) -> Result<Extracted, ExtractError> {
    let mut writer = Writer::new(limits);
    let mut failure = None;
    let records = reader(text, delimiter(text)).into_records();
    let rows = records.map_while(|record| match record {
        Ok(record) => Some(record.iter().map(str::to_owned).collect::<Vec<String>>()),
        Err(error) => {
            failure = Some(ExtractError::malformed(error));
            None
        }
    });
    writer.table(rows);
    match failure {
        Some(failure) => Err(failure),
        None => writer.finish(None),
    }
}

fn reader(text: &str, delimiter: u8) -> csv::Reader<&[u8]> {
    csv::ReaderBuilder::new().has_headers(false).flexible(true).delimiter(delimiter).from_reader(text.as_bytes())
}

/// The delimiter with which most records have as many cells as the first, and that more than one; of several, the one
/// that makes most cells.
fn delimiter(text: &str) -> u8 {
    let fit = |delimiter: u8| {
        let widths: Vec<usize> = reader(text, delimiter)
            .into_records()
            .flatten()
            .take(RECORDS_LOOKED_AT)
            .map(|record| record.len())
            .collect();
        let width = widths.first().copied().unwrap_or(0);
        let alike = widths.iter().filter(|other| **other == width).count();
        if width > 1 { (alike, width) } else { (0, 0) }
    };
    // The first of equals: a comma, if nothing tells.
    DELIMITERS.into_iter().rev().max_by_key(|delimiter| fit(*delimiter)).unwrap_or(b',')
}
