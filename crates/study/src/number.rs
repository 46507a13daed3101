//! Numbers as people read them: three significant digits, a unit that fits.

/// `value` with three significant digits, without an exponent between 0.001 and 10^7: `0.0123`, `1.23`, `1230`.
#[must_use]
pub fn significant(value: f64) -> String {
    let size = value.abs();
    if size == 0.0 {
        return "0".into();
    }
    if !(1e-3..1e7).contains(&size) {
        return format!("{value:.1e}");
    }
    // Rounding first: 9.999 has three digits as 10.0, not as 10.00.
    let rounded: f64 = format!("{value:.2e}").parse().unwrap_or(value);
    let decimals = (2 - rounded.abs().log10().floor() as i32).max(0);
    format!("{rounded:.*}", decimals as usize)
}

/// Bytes in the binary unit that fits: `1.50 GiB`.
#[must_use]
pub fn bytes(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let step = (bytes.max(1).ilog2() / 10).min(4);
    format!("{} {}", significant(bytes as f64 / (1_u64 << (10 * step)) as f64), units[step as usize])
}

/// `text` counted: `1 cell`, `2 cells`.
#[must_use]
pub fn count(n: usize, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits_whatever_the_size() {
        let cases = [
            (0.0, "0"),
            (0.012_34, "0.0123"),
            (0.999_9, "1.00"),
            (1.234, "1.23"),
            (9.999, "10.0"),
            (99.96, "100"),
            (1234.4, "1230"),
            (-1.5, "-1.50"),
            (1.3e-7, "1.3e-7"),
            (3.1e9, "3.1e9"),
        ];
        for (value, text) in cases {
            assert_eq!(significant(value), text);
        }
    }

    #[test]
    fn bytes_have_a_unit_that_fits() {
        assert_eq!([bytes(0), bytes(1023), bytes(3 << 29)], ["0 B", "1020 B", "1.50 GiB"]);
    }
}
