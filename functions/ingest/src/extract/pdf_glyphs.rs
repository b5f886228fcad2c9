//! The text of PDF pages from the glyphs that are drawn, in the order in which they are.

use std::sync::Arc;

use hayro_interpret::font::Glyph;
use hayro_interpret::hayro_cmap::BfString;
use hayro_interpret::hayro_syntax::{DecryptionError, LoadPdfError, Pdf};
use hayro_interpret::kurbo::{Affine, BezPath, Point, Rect};
use hayro_interpret::{
    BlendMode, ClipPath, Context, Device, DrawMode, DrawProps, Image, ImageDrawProps, InterpreterCache,
    InterpreterSettings, SoftMask, font::GlyphRun, interpret_page,
};

use super::{ExtractError, is_refused_control};

/// What was read.
#[derive(Debug, Default)]
pub(super) struct Glyphs {
    /// Each page's text, an empty line between its paragraphs.
    pub(super) pages: Vec<String>,
    /// Letters and digits.
    pub(super) chars: usize,
    /// Glyphs of which nobody knows what they stand for.
    pub(super) unknown: usize,
}

pub(super) fn read(bytes: &[u8], pages_max: usize) -> Result<Glyphs, ExtractError> {
    let pdf = Pdf::new(bytes.to_vec()).map_err(|error| match error {
        LoadPdfError::Decryption(DecryptionError::PasswordProtected) => ExtractError::PasswordProtected,
        _ => ExtractError::malformed("it is no PDF that can be read"),
    })?;
    if pdf.pages().len() > pages_max {
        return Err(ExtractError::too_many("pages", pages_max as u64));
    }
    let settings = InterpreterSettings { warning_sink: Arc::new(|_| {}), ..InterpreterSettings::default() };
    let cache = InterpreterCache::new();
    let mut glyphs = Glyphs::default();
    for page in pdf.pages().iter() {
        let (width, height) = page.render_dimensions();
        let area = Rect::new(0.0, 0.0, width.into(), height.into());
        let upright = Affine::new(page.initial_transform(true).as_coeffs());
        let mut context = Context::new(upright, area, &cache, page.xref(), settings.clone());
        let mut pen = Pen { glyphs: &mut glyphs, text: String::new(), last: None };
        interpret_page(page, &mut context, &mut pen);
        let text = pen.text;
        glyphs.pages.push(text);
    }
    Ok(glyphs)
}

/// Takes down what is drawn.
struct Pen<'g> {
    glyphs: &'g mut Glyphs,
    text: String,
    last: Option<Place>,
}

/// Where a glyph ended.
struct Place {
    end: Point,
    size: f64,
}

impl Pen<'_> {
    fn glyph(&mut self, glyph: &Glyph<'_>, advance: Option<f32>, place: Affine) {
        let origin = place * Point::ORIGIN;
        // Glyphs are drawn in thousandths of the font's size.
        let size = ((place * Point::new(0.0, 1_000.0)) - origin).hypot();
        let end = place * Point::new(f64::from(advance.unwrap_or(500.0)), 0.0);
        let character = glyph.as_unicode();
        if let Some(last) = &self.last {
            self.separate(last.end, origin, size.max(last.size));
        }
        match character {
            Some(BfString::Char(character)) => self.push(character),
            Some(BfString::String(characters)) => characters.chars().for_each(|character| self.push(character)),
            None => self.glyphs.unknown += 1,
        }
        self.last = Some(Place { end, size });
    }

    /// A space, a line's end or a paragraph's, as far as the pen was moved.
    fn separate(&mut self, from: Point, to: Point, size: f64) {
        let (across, down) = (to.x - from.x, (to.y - from.y).abs());
        let between = if down > size * 1.8 {
            "\n\n"
        } else if down > size * 0.5 {
            "\n"
        } else if across > size * 0.2 || across < -size {
            " "
        } else {
            return;
        };
        if !self.text.ends_with(char::is_whitespace) {
            self.text.push_str(between);
        } else if between == "\n\n" && !self.text.ends_with("\n\n") {
            self.text.push('\n');
        }
    }

    fn push(&mut self, character: char) {
        if character == '\u{fffd}' || is_refused_control(character) {
            self.glyphs.unknown += 1;
        } else if !(character.is_whitespace() && self.text.ends_with(char::is_whitespace)) {
            self.glyphs.chars += usize::from(character.is_alphanumeric());
            self.text.push(character);
        }
    }
}

impl<'a> Device<'a> for Pen<'_> {
    fn draw_glyph_run(&mut self, run: &GlyphRun<'_, 'a>, props: DrawProps<'a>, _: &DrawMode) {
        for glyph in run.glyphs() {
            let advance = match &**glyph {
                Glyph::Outline(glyph) => glyph.advance_width(),
                Glyph::Type3(glyph) => glyph.advance_width(),
            };
            self.glyph(glyph, advance, props.transform * glyph.transform());
        }
    }

    fn draw_path(&mut self, _: &BezPath, _: DrawProps<'a>, _: &DrawMode) {}
    fn push_clip_path(&mut self, _: &ClipPath) {}
    fn push_transparency_group(&mut self, _: f32, _: Option<SoftMask<'a>>, _: BlendMode) {}
    fn draw_image(&mut self, _: Image<'a, '_>, _: ImageDrawProps<'a>) {}
    fn pop_clip(&mut self) {}
    fn pop_transparency_group(&mut self) {}
}
