//! Pages of a Parquet column, checked before they are decoded.
//!
//! The parquet crate (60.1) makes room for as many strings as a dictionary's header, or the header of a list of lengths,
//! says there are. A damaged or hostile number, up to 2^60 in a few bytes, would end the program for lack of memory. A
//! string takes bytes, so the page's own size bounds how many there can be.

use parquet::basic::Encoding;
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::errors::{ParquetError, Result};
use parquet::schema::types::ColumnDescriptor;

/// The largest page, unpacked: a page commonly holds one MiB.
const LARGEST: usize = 1 << 28;

/// A reader whose pages are checked.
pub(super) struct Checked {
    pages: Box<dyn PageReader>,
    /// Whether values may be null, so that levels stand before them.
    optional: bool,
}

impl Checked {
    /// The pages of the column `descriptor`, which does not repeat.
    pub(super) fn new(pages: Box<dyn PageReader>, descriptor: &ColumnDescriptor) -> Self {
        Self { pages, optional: descriptor.max_def_level() > 0 }
    }

    fn check(&self, page: &Page) -> Result<()> {
        let bytes = page.buffer().len();
        if bytes > LARGEST {
            return Err(damaged(&format!("a page of {bytes} bytes, expected at most {LARGEST}")));
        }
        let (values, levels) = match page {
            // A string is its length, four bytes, and itself.
            Page::DictionaryPage { num_values, .. } => {
                return at_most("strings in a dictionary", *num_values, bytes / 4);
            }
            Page::DataPage { num_values, buf, .. } => {
                let levels = match buf.first_chunk() {
                    Some(length) if self.optional => (u32::from_le_bytes(*length) as usize).saturating_add(4),
                    _ => 0,
                };
                (*num_values, levels)
            }
            Page::DataPageV2 { num_values, def_levels_byte_len, rep_levels_byte_len, .. } => {
                (*num_values, (*def_levels_byte_len as usize).saturating_add(*rep_levels_byte_len as usize))
            }
        };
        let Some(mut bytes) = page.buffer().get(levels..) else {
            return Err(damaged(&format!("{levels} bytes of levels in a page of {bytes}")));
        };
        // Lengths, or lengths of what is shared with the string before and lengths of the rest.
        let lists = match page.encoding() {
            Encoding::DELTA_LENGTH_BYTE_ARRAY => 1,
            Encoding::DELTA_BYTE_ARRAY => 2,
            _ => 0,
        };
        for _ in 0..lists {
            let numbers = Numbers::read(&mut bytes).ok_or_else(|| damaged("a list of lengths that ends early"))?;
            at_most("lengths", u32::try_from(numbers.count).unwrap_or(u32::MAX), values as usize)?;
            numbers.skip(&mut bytes).ok_or_else(|| damaged("a list of lengths that ends early"))?;
        }
        Ok(())
    }
}

/// The head of a list in the encoding `DELTA_BINARY_PACKED`.
struct Numbers {
    block: u64,
    parts: u64,
    count: u64,
}

impl Numbers {
    fn read(bytes: &mut &[u8]) -> Option<Self> {
        let numbers = Self { block: number(bytes)?, parts: number(bytes)?, count: number(bytes)? };
        number(bytes)?; // the first number itself
        Some(numbers)
    }

    /// Goes past the blocks: the least difference, a width for each part, and the parts that have numbers.
    fn skip(&self, bytes: &mut &[u8]) -> Option<()> {
        let part = self.block.checked_div(self.parts).filter(|&part| part > 0)?;
        let mut left = self.count.saturating_sub(1);
        while left > 0 {
            number(bytes)?;
            let widths;
            (widths, *bytes) = bytes.split_at_checked(usize::try_from(self.parts).ok()?)?;
            for &width in widths {
                if left == 0 {
                    break;
                }
                let size = usize::try_from(part.checked_mul(u64::from(width))? / 8).ok()?;
                // The last part may end with the data.
                *bytes = bytes.get(size..).unwrap_or_default();
                left = left.saturating_sub(part);
            }
        }
        Some(())
    }
}

/// A number of seven bits a byte, the lowest first.
fn number(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.split_off_first()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn at_most(what: &str, found: u32, most: usize) -> Result<()> {
    if found as usize <= most { Ok(()) } else { Err(damaged(&format!("{found} {what}, expected at most {most}"))) }
}

fn damaged(what: &str) -> ParquetError {
    ParquetError::General(format!("damaged page: {what}"))
}

impl Iterator for Checked {
    type Item = Result<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

impl PageReader for Checked {
    fn get_next_page(&mut self) -> Result<Option<Page>> {
        let page = self.pages.get_next_page()?;
        page.as_ref().map_or(Ok(()), |page| self.check(page))?;
        Ok(page)
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
        self.pages.peek_next_page()
    }

    fn skip_next_page(&mut self) -> Result<()> {
        self.pages.skip_next_page()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_numbers_are_gone_past() {
        // Blocks of 128 in 4 parts; five numbers from 7 on: the least difference 0, widths 2 0 0 0, 32 times 2 bits.
        let list = [&[0x80, 1, 4, 5, 14, 0, 2, 0, 0, 0][..], &[0; 8], b"rest"].concat();
        let mut bytes = &list[..];
        let numbers = Numbers::read(&mut bytes).unwrap();
        assert_eq!((numbers.block, numbers.parts, numbers.count), (128, 4, 5));
        numbers.skip(&mut bytes).unwrap();
        assert_eq!(bytes, b"rest");
        assert!(Numbers::read(&mut &[0x80, 1, 4][..]).is_none());
        assert!(number(&mut &[0xff; 20][..]).is_none());
    }
}
