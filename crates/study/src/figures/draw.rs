//! Figures as files: laid out once, then drawn by plotters as SVG or as pixels, with a font that the program carries.

use plotters::backend::{BitMapBackend, DrawingBackend, SVGBackend};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, FontStyle, FontTransform, IntoFont, RGBColor, ShapeStyle, TextStyle};

use super::chart::{Body, Chart, Key, PALETTE, PUBLISHED, Trace};
use super::scene::{Anchor, Colour, INK, MUTED, Mark, PAPER, Scene};
use super::{panels, rows};
use crate::{Error, Result};

/// Pixels for each unit of a scene: figures stay sharp on dense screens.
const SCALE: f64 = 2.0;

/// A figure's width in units.
pub(super) const WIDTH: f64 = 960.0;

/// Left and right of everything.
pub(super) const MARGIN: f64 = 24.0;

/// The font, `font/README.md`.
pub(crate) const REGULAR: &[u8] = include_bytes!("font/inter-regular.ttf");

/// Its headings.
pub(crate) const SEMIBOLD: &[u8] = include_bytes!("font/inter-semibold.ttf");

/// Also what an SVG asks a reader's machine for, which may lack the first.
const FONT: &str = "Inter, Helvetica, Arial, sans-serif";

/// The figure as an SVG document.
///
/// # Errors
/// None that an input can cause: what plotters says.
pub fn svg(chart: &Chart) -> Result<String> {
    let scene = scene(chart)?;
    let mut out = String::new();
    draw(&scene, SVGBackend::with_string(&mut out, pixels(&scene))).map_err(|what| failed(chart, what))?;
    Ok(out)
}

/// The figure as a PNG file.
///
/// # Errors
/// As [`svg`].
pub fn png(chart: &Chart) -> Result<Vec<u8>> {
    let scene = scene(chart)?;
    let (width, height) = pixels(&scene);
    let mut buffer = vec![0xff; width as usize * height as usize * 3];
    draw(&scene, BitMapBackend::with_buffer(&mut buffer, (width, height))).map_err(|what| failed(chart, what))?;
    let mut out = Vec::new();
    let mut encoder = png::Encoder::new(&mut out, width, height);
    encoder.set_color(png::ColorType::Rgb);
    let written = encoder.write_header().and_then(|mut writer| writer.write_image_data(&buffer));
    written.map_err(|e| failed(chart, e.to_string()))?;
    Ok(out)
}

fn failed(chart: &Chart, what: String) -> Error {
    Error::Figure { figure: chart.id.clone(), what }
}

/// Title, legend, body, note, from top to bottom.
fn scene(chart: &Chart) -> Result<Scene> {
    register().map_err(|what| failed(chart, what))?;
    let mut scene = Scene { width: WIDTH, height: 0.0, marks: Vec::new() };
    scene.heading((MARGIN, 32.0), &chart.title, 20.0);
    scene.text((MARGIN, 56.0), &chart.subtitle, 12.0, MUTED, Anchor::Start);
    let mut y = legend(&mut scene, chart, 82.0);
    y = match &chart.body {
        Body::Rows { axis, groups, dots, reference } => {
            rows::lay(&mut scene, chart, (axis, groups, *dots, *reference), y)
        }
        Body::Panels { x, y: up, panels, reference } => panels::lay(&mut scene, chart, (x, up, panels, *reference), y),
    };
    y += 14.0;
    for line in wrapped(&chart.note, 11.0, WIDTH - 2.0 * MARGIN) {
        scene.text((MARGIN, y), &line, 11.0, MUTED, Anchor::Start);
        y += 16.0;
    }
    scene.height = y + 8.0;
    Ok(scene)
}

/// Swatches and labels, in as many lines as they need.
fn legend(scene: &mut Scene, chart: &Chart, top: f64) -> f64 {
    // Panels of one series each say whose they are, and points may be labelled themselves.
    let labelled = match &chart.body {
        Body::Rows { .. } => false,
        Body::Panels { panels, .. } => panels.iter().all(|panel| {
            let told = |trace: &Trace| trace.label.is_some() || (panel.series.is_some() && !trace.joined);
            panel.traces.iter().all(told)
        }),
    };
    if labelled {
        return top - 12.0;
    }
    let (mut x, mut y) = (MARGIN, top);
    for key in &chart.keys {
        let advance = 18.0 + text_width(&key.label, 12.0, false) + 18.0;
        if x > MARGIN && x + advance > WIDTH - MARGIN {
            (x, y) = (MARGIN, y + 20.0);
        }
        scene.rect((x, y - 5.0), (11.0, 11.0), colour(key));
        scene.text((x + 17.0, y + 0.5), &key.label, 12.0, INK, Anchor::Start);
        x += advance;
    }
    y + 18.0
}

/// A key's colour.
pub(super) fn colour(key: &Key) -> Colour {
    if key.colour == PUBLISHED {
        return (0x9a, 0xa3, 0xac);
    }
    let hex = PALETTE[key.colour % PALETTE.len()].trim_start_matches('#');
    let part = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap_or_default();
    (part(0), part(2), part(4))
}

/// How wide a text is in the font that figures carry.
pub(super) fn text_width(text: &str, size: f64, bold: bool) -> f64 {
    // In pixels, where rounding to whole ones matters less.
    let style = if bold { FontStyle::Bold } else { FontStyle::Normal };
    let font = (FONT, size * SCALE, style).into_font();
    font.box_size(text).map_or(text.chars().count() as f64 * size * 0.6, |(width, _)| f64::from(width) / SCALE)
}

/// Lines no wider than `width`, broken at spaces.
fn wrapped(text: &str, size: f64, width: f64) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if text_width(&format!("{line} {word}"), size, false) <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.into()),
        }
    }
    lines
}

/// Tells plotters of the fonts; again and again does no harm.
fn register() -> Result<(), String> {
    let fonts = [(FontStyle::Normal, REGULAR), (FontStyle::Bold, SEMIBOLD)];
    let registered =
        |(style, font)| plotters::style::register_font(FONT, style, font).map_err(|_| "not a font".to_owned());
    fonts.into_iter().try_for_each(registered)
}

fn pixels(scene: &Scene) -> (u32, u32) {
    ((scene.width * SCALE).ceil() as u32, (scene.height * SCALE).ceil() as u32)
}

fn draw<B: DrawingBackend>(scene: &Scene, mut backend: B) -> Result<(), String> {
    let (width, height) = pixels(scene);
    let paper = style(PAPER, 1.0);
    backend.draw_rect((0, 0), (width as i32, height as i32), &paper, true).map_err(|e| e.to_string())?;
    scene.marks.iter().try_for_each(|mark| put(mark, &mut backend))?;
    backend.present().map_err(|e| e.to_string())
}

fn put<B: DrawingBackend>(mark: &Mark, backend: &mut B) -> Result<(), String> {
    let pixel = |value: f64| (value * SCALE).round() as i32;
    let drawn = match mark {
        Mark::Rect { x, y, width, height, colour } => {
            let to = (pixel(x + width).max(pixel(*x) + 1), pixel(y + height).max(pixel(*y) + 1));
            backend.draw_rect((pixel(*x), pixel(*y)), to, &style(*colour, 1.0), true)
        }
        Mark::Line { points, width, colour } => {
            let points = points.iter().map(|(x, y)| (pixel(*x), pixel(*y)));
            backend.draw_path(points, &style(*colour, *width))
        }
        Mark::Dot { x, y, radius, colour } => {
            backend.draw_circle((pixel(*x), pixel(*y)), pixel(*radius) as u32, &style(*colour, 1.0), true)
        }
        Mark::Text { x, y, text, size, bold, colour, anchor } => {
            let horizontal = match anchor {
                Anchor::Start => HPos::Left,
                Anchor::Middle => HPos::Center,
                Anchor::End => HPos::Right,
            };
            let weight = if *bold { FontStyle::Bold } else { FontStyle::Normal };
            let font = (FONT, size * SCALE, weight).into_font().transform(FontTransform::None);
            let colour = rgb(*colour);
            let style = TextStyle::from(font).color(&colour).pos(Pos::new(horizontal, VPos::Center));
            // Letters sit a little above the middle of their box.
            backend.draw_text(text, &style, (pixel(*x), pixel(y + size * 0.06)))
        }
    };
    drawn.map_err(|e| e.to_string())
}

fn rgb((red, green, blue): Colour) -> RGBColor {
    RGBColor(red, green, blue)
}

fn style(colour: Colour, width: f64) -> ShapeStyle {
    rgb(colour).stroke_width((width * SCALE).round() as u32)
}
