//! Shapes and words at places: what a laid-out figure is before it becomes pixels or SVG.

/// A colour: red, green, blue.
pub(super) type Colour = (u8, u8, u8);

/// Words and bars' numbers.
pub(super) const INK: Colour = (0x1c, 0x22, 0x28);
/// Less important words.
pub(super) const MUTED: Colour = (0x5b, 0x65, 0x70);
/// Lines of a grid.
pub(super) const GRID: Colour = (0xe3, 0xe7, 0xeb);
/// What lies behind.
pub(super) const PAPER: Colour = (0xff, 0xff, 0xff);
/// Every second group.
pub(super) const BAND: Colour = (0xf5, 0xf7, 0xf9);

/// Where a text begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// One shape. Lengths are in units of which a figure is 960 wide; y points down.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Mark {
    Rect { x: f64, y: f64, width: f64, height: f64, colour: Colour },
    Line { points: Vec<(f64, f64)>, width: f64, colour: Colour },
    Dot { x: f64, y: f64, radius: f64, colour: Colour },
    Text { x: f64, y: f64, text: String, size: f64, bold: bool, colour: Colour, anchor: Anchor },
}

/// A figure, laid out.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Scene {
    pub(super) width: f64,
    pub(super) height: f64,
    pub(super) marks: Vec<Mark>,
}

impl Scene {
    pub(super) fn rect(&mut self, (x, y): (f64, f64), (width, height): (f64, f64), colour: Colour) {
        self.marks.push(Mark::Rect { x, y, width, height, colour });
    }

    pub(super) fn line(&mut self, points: Vec<(f64, f64)>, width: f64, colour: Colour) {
        self.marks.push(Mark::Line { points, width, colour });
    }

    pub(super) fn dot(&mut self, (x, y): (f64, f64), radius: f64, colour: Colour) {
        self.marks.push(Mark::Dot { x, y, radius, colour });
    }

    /// Text whose middle is at height `y`.
    pub(super) fn text(&mut self, (x, y): (f64, f64), text: &str, size: f64, colour: Colour, anchor: Anchor) {
        self.marks.push(Mark::Text { x, y, text: text.into(), size, bold: false, colour, anchor });
    }

    /// The same in semibold.
    pub(super) fn heading(&mut self, (x, y): (f64, f64), text: &str, size: f64) {
        let anchor = Anchor::Start;
        self.marks.push(Mark::Text { x, y, text: text.into(), size, bold: true, colour: INK, anchor });
    }
}
