//! The header of a `.npy` file, version 1.0: magic, version, length, and a Python dictionary as text.
//!
//! *Source*: numpy/lib/format.py, "Format Version 1.0".

const MAGIC: &[u8; 8] = b"\x93NUMPY\x01\x00";
/// The data after the header is aligned to this.
const ALIGN_BYTES: usize = 64;

/// What a header says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Type of the elements, as `<f8`.
    pub(super) descr: String,
    /// First index fastest.
    pub(super) fortran_order: bool,
    /// Elements per axis.
    pub(super) shape: Vec<usize>,
}

impl Header {
    /// Its bytes, a multiple of 64; `None` if they are more than version 1.0 can say.
    pub(super) fn write(&self) -> Option<Vec<u8>> {
        let order = if self.fortran_order { "True" } else { "False" };
        let mut axes: String = self.shape.iter().map(|axis| format!("{axis}, ")).collect();
        // Python writes (3,) and (2, 3).
        axes.truncate(axes.len().saturating_sub(if self.shape.len() == 1 { 1 } else { 2 }));
        let text = format!("{{'descr': '{}', 'fortran_order': {order}, 'shape': ({axes}), }}", self.descr);
        let bytes = (MAGIC.len() + 2 + text.len() + 1).next_multiple_of(ALIGN_BYTES);
        let rest = u16::try_from(bytes - MAGIC.len() - 2).ok()?;
        let mut header = Vec::with_capacity(bytes);
        header.extend_from_slice(MAGIC);
        header.extend_from_slice(&rest.to_le_bytes());
        header.extend_from_slice(text.as_bytes());
        header.resize(bytes - 1, b' ');
        header.push(b'\n');
        Some(header)
    }

    /// Reads a header and gives the data after it.
    pub(super) fn read(bytes: &[u8]) -> Result<(Self, &[u8]), &'static str> {
        let rest = bytes.strip_prefix(MAGIC).ok_or("it does not begin as a .npy file of version 1.0")?;
        let (length, rest) = rest.split_first_chunk::<2>().ok_or("its .npy header is torn")?;
        let length = usize::from(u16::from_le_bytes(*length));
        let (text, data) = rest.split_at_checked(length).ok_or("its .npy header is torn")?;
        let text = std::str::from_utf8(text).map_err(|_| "its .npy header is no text")?;
        Self::parse(text).map(|header| (header, data)).ok_or("its .npy header cannot be read")
    }

    fn parse(text: &str) -> Option<Self> {
        let after = |key: &str| text.split_once(key).map(|(_, rest)| rest.trim_start());
        let descr = after("'descr':")?.strip_prefix('\'')?.split_once('\'')?.0.to_owned();
        let order = after("'fortran_order':")?;
        let shape = after("'shape':")?.strip_prefix('(')?.split_once(')')?.0;
        let axes = shape.split(',').map(str::trim).filter(|axis| !axis.is_empty());
        Some(Self {
            descr,
            fortran_order: order.starts_with("True"),
            shape: axes.map(|axis| axis.parse().ok()).collect::<Option<_>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_as_written() {
        for shape in [vec![], vec![3], vec![2, 3], vec![0, 5, 7, 100_000]] {
            for fortran_order in [false, true] {
                let header = Header { descr: "<f8".to_owned(), fortran_order, shape: shape.clone() };
                let bytes = header.write().unwrap();
                assert_eq!(bytes.len() % 64, 0);
                assert_eq!(Header::read(&bytes), Ok((header, &[][..])));
            }
        }
    }

    #[test]
    fn headers_read_as_numpy_writes_them() {
        let header = Header { descr: "<f8".to_owned(), fortran_order: false, shape: vec![3] };
        let text = String::from_utf8_lossy(&header.write().unwrap()[10..]).into_owned();
        assert_eq!(text.trim_end(), "{'descr': '<f8', 'fortran_order': False, 'shape': (3,), }");
    }

    #[test]
    fn torn_headers_are_errors() {
        let bytes = Header { descr: "<f8".to_owned(), fortran_order: false, shape: vec![3] }.write().unwrap();
        for end in 0..bytes.len() {
            assert!(Header::read(&bytes[..end]).is_err(), "{end}");
        }
    }
}
