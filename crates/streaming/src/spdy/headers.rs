//! Header blocks: names and values, compressed with a context that lives as long as the connection.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::Violation;
use super::dictionary::dictionary;

/// The most that a block may hold once it is decompressed. Real clients send some dozens of bytes.
const MAX_BLOCK: usize = 64 * 1024;

/// The most headers in a block.
const MAX_HEADERS: u32 = 100;

/// 2 KiB are enough for the dictionary; a larger window only costs memory.
const WINDOW_BITS: u8 = 11;

/// The headers that a stream is opened with. Their names are in lower case.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Headers(Vec<(String, String)>);

impl Headers {
    /// The value of a header; empty if it is absent, as upstream has it.
    pub(crate) fn get(&self, name: &str) -> &str {
        let found = self.0.iter().find(|(it, _)| it.eq_ignore_ascii_case(name));
        found.map_or("", |(_, value)| value)
    }

    fn parse(mut block: &[u8]) -> Result<Self, Violation> {
        let count = number(&mut block)?;
        if count > MAX_HEADERS {
            return Err(Violation::TooManyHeaders);
        }
        let mut headers = Vec::new();
        for _ in 0..count {
            let name = text(&mut block)?;
            let value = text(&mut block)?;
            let is_known = headers.iter().any(|(it, _)| *it == name);
            if name.is_empty() || is_known || name.bytes().any(|byte| byte.is_ascii_uppercase()) {
                return Err(Violation::HeaderBlock);
            }
            headers.push((name, value));
        }
        Ok(Self(headers))
    }
}

fn number(block: &mut &[u8]) -> Result<u32, Violation> {
    let (bytes, rest) = block.split_first_chunk().ok_or(Violation::HeaderBlock)?;
    *block = rest;
    Ok(u32::from_be_bytes(*bytes))
}

fn text(block: &mut &[u8]) -> Result<String, Violation> {
    let length = usize::try_from(number(block)?).map_err(|_| Violation::HeaderBlock)?;
    let (bytes, rest) = block.split_at_checked(length).ok_or(Violation::HeaderBlock)?;
    *block = rest;
    String::from_utf8(bytes.to_vec()).map_err(|_| Violation::HeaderBlock)
}

/// Reads the client's blocks, in the order in which they were sent.
pub(super) struct Inflater(Decompress);

impl Inflater {
    pub(super) fn new() -> Self {
        Self(Decompress::new(true))
    }

    pub(super) fn headers(&mut self, compressed: &[u8]) -> Result<Headers, Violation> {
        Headers::parse(&self.inflate(compressed)?)
    }

    fn inflate(&mut self, mut compressed: &[u8]) -> Result<Vec<u8>, Violation> {
        let mut block = Vec::new();
        let mut buffer = [0; 2048];
        loop {
            let (read, written) = (self.0.total_in(), self.0.total_out());
            let result = self.0.decompress(compressed, &mut buffer, FlushDecompress::Sync);
            let read = (self.0.total_in() - read) as usize;
            let written = (self.0.total_out() - written) as usize;
            compressed = &compressed[read..];
            block.extend_from_slice(&buffer[..written]);
            if block.len() > MAX_BLOCK {
                return Err(Violation::HeadersTooLarge);
            }
            match result {
                Ok(Status::StreamEnd) => return Err(Violation::Compression),
                Ok(_) if compressed.is_empty() && written < buffer.len() => return Ok(block),
                Ok(_) if read == 0 && written == 0 => return Err(Violation::Compression),
                Ok(_) => {}
                Err(error) if error.needs_dictionary().is_some() => {
                    self.0.set_dictionary(&dictionary()).map_err(|_| Violation::Compression)?;
                }
                Err(_) => return Err(Violation::Compression),
            }
        }
    }
}

/// Writes blocks without a header: this side never sends any.
pub(super) struct Deflater(Compress);

impl Deflater {
    pub(super) fn new() -> Result<Self, Violation> {
        let mut compress = Compress::new_with_window_bits(Compression::fast(), true, WINDOW_BITS);
        compress.set_dictionary(&dictionary()).map_err(|_| Violation::Compression)?;
        Ok(Self(compress))
    }

    pub(super) fn no_headers(&mut self) -> Result<Vec<u8>, Violation> {
        let mut compressed = Vec::with_capacity(64);
        let result = self.0.compress_vec(&0u32.to_be_bytes(), &mut compressed, FlushCompress::Sync);
        result.map_err(|_| Violation::Compression)?;
        Ok(compressed)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The blocks of a client, one after the other.
    pub(crate) struct Client(Compress);

    impl Client {
        pub(crate) fn new() -> Self {
            let mut compress = Compress::new(Compression::best(), true);
            compress.set_dictionary(&dictionary()).unwrap();
            Self(compress)
        }

        pub(crate) fn block(&mut self, headers: &[(&str, &str)]) -> Vec<u8> {
            let mut plain = u32::try_from(headers.len()).unwrap().to_be_bytes().to_vec();
            for text in headers.iter().flat_map(|(name, value)| [name, value]) {
                plain.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
                plain.extend(text.as_bytes());
            }
            self.compress(&plain)
        }

        pub(crate) fn compress(&mut self, plain: &[u8]) -> Vec<u8> {
            let mut compressed = Vec::with_capacity(plain.len() + 1024);
            self.0.compress_vec(plain, &mut compressed, FlushCompress::Sync).unwrap();
            compressed
        }
    }

    #[test]
    fn blocks_share_a_context() {
        let (mut client, mut inflater) = (Client::new(), Inflater::new());
        let first = client.block(&[("streamtype", "error"), ("port", "80")]);
        let second = client.block(&[("streamtype", "data"), ("port", "80")]);
        assert!(second.len() < first.len());
        assert_eq!(inflater.headers(&first).unwrap().get("streamType"), "error");
        let headers = inflater.headers(&second).unwrap();
        assert_eq!((headers.get("streamtype"), headers.get("port"), headers.get("no")), ("data", "80", ""));
    }

    #[test]
    fn bombs_are_refused() {
        let bomb = Client::new().compress(&vec![0; 1 << 20]);
        assert!(bomb.len() < 4096);
        assert!(matches!(Inflater::new().headers(&bomb), Err(Violation::HeadersTooLarge)));
        let many: Vec<_> = (0..101).map(|number| number.to_string()).collect();
        let many: Vec<_> = many.iter().map(|name| (name.as_str(), "")).collect();
        let many = Client::new().block(&many);
        assert!(matches!(Inflater::new().headers(&many), Err(Violation::TooManyHeaders)));
    }

    #[test]
    fn malformed_blocks_are_refused() {
        for headers in [&[("Port", "80")][..], &[("port", "80"), ("port", "81")], &[("", "80")]] {
            let block = Client::new().block(headers);
            assert!(matches!(Inflater::new().headers(&block), Err(Violation::HeaderBlock)), "{headers:?}");
        }
        for plain in [&[][..], &[0, 0, 0, 1], &[0, 0, 0, 1, 255, 255, 255, 255, b'a']] {
            let block = Client::new().compress(plain);
            assert!(Inflater::new().headers(&block).is_err(), "{plain:?}");
        }
        assert!(matches!(Inflater::new().headers(b"not zlib"), Err(Violation::Compression)));
    }

    #[test]
    fn what_replies_hold_is_read_by_a_standard_zlib() {
        let mut deflater = Deflater::new().unwrap();
        let mut inflater = Inflater::new();
        for _ in 0..3 {
            let block = deflater.no_headers().unwrap();
            assert_eq!(inflater.headers(&block).unwrap(), Headers::default());
        }
    }
}
