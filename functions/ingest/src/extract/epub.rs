//! EPUB: its chapters, in their order.

use std::io::Cursor;

use rbook::Epub;
use rbook::ebook::errors::EbookError;

use super::{ExtractError, Extracted, Job, html, writer::Writer, zip};

pub(super) fn extract(bytes: Vec<u8>, job: &Job) -> Result<Extracted, ExtractError> {
    let directory = zip::Directory::read(&bytes).ok_or_else(|| ExtractError::malformed("its archive is cut off"))?;
    directory.check()?;
    // Fonts are obfuscated under this name too, but then the text is not.
    let has_rights = directory.has("META-INF/rights.xml") || directory.has("META-INF/license.lcpl");
    let book = Epub::options().strict(false).read(Cursor::new(bytes)).map_err(|error| refusal(&error))?;
    let mut writer = Writer::new(&job.limits);
    let chapters = book.spine().len();
    if chapters > job.limits.pages_max {
        return Err(ExtractError::too_many("chapters", job.limits.pages_max as u64));
    }
    let mut failure = None;
    for chapter in book.reader() {
        if writer.is_full() {
            break;
        }
        let read = match chapter {
            Ok(chapter) => html::whole(chapter.content()),
            Err(error) => Err(ExtractError::malformed(error)),
        };
        match read {
            Ok(read) => writer.append(&read, 0),
            // A cover is a picture.
            Err(ExtractError::Empty) => {}
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    let title = book.metadata().title().map(|title| rbook::ebook::metadata::MetaEntry::value(&title).to_owned());
    match (writer.finish(None), failure) {
        (Ok(read), _) => Ok(read.titled(title.as_deref())),
        (Err(ExtractError::Empty), Some(_)) if has_rights => Err(ExtractError::PasswordProtected),
        (Err(ExtractError::Empty), Some(failure)) => Err(failure),
        (Err(error), _) => Err(error),
    }
}

fn refusal(error: &EbookError) -> ExtractError {
    ExtractError::malformed(error)
}
