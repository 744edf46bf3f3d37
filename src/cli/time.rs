//! Times as people write them: `90`, `1.5s`, `10m`, `2h30m`, `1d`.

use std::time::Duration;

/// Seconds in each unit, largest first.
const UNITS: [(&str, f64); 5] = [("d", 86400.0), ("h", 3600.0), ("ms", 0.001), ("m", 60.0), ("s", 1.0)];

/// Reads a time. A number alone is seconds.
pub(super) fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no time: write 90, 1.5s, 10m, 2h30m or 1d");
    let mut rest = text.trim();
    let mut seconds = 0.0;
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let number: f64 = rest[..end].parse().map_err(|_| wrong())?;
        rest = &rest[end..];
        let unit = UNITS.iter().find(|(unit, _)| rest.starts_with(unit));
        let (unit, each) = match unit {
            Some((unit, each)) => (unit.len(), *each),
            None if rest.is_empty() => (0, 1.0),
            None => return Err(wrong()),
        };
        seconds += number * each;
        rest = &rest[unit..];
    }
    Duration::try_from_secs_f64(seconds).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        let ms = |text: &str| parse(text).map(|it| it.as_millis());
        assert_eq!(ms("90"), Ok(90_000));
        assert_eq!(ms("1.5s"), Ok(1500));
        assert_eq!(ms("250ms"), Ok(250));
        assert_eq!(ms("2h30m"), Ok(9_000_000));
        assert_eq!(ms("1d"), Ok(86_400_000));
        assert_eq!(ms("1m30"), Ok(90_000));
        for text in ["", "x", "1x", "-1", "1..2", "1e9", "s", "99999999999999999999d"] {
            assert!(ms(text).is_err(), "{text}");
        }
    }
}
