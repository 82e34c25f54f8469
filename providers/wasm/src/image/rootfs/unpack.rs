//! Undoes the compression of a layer.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

/// The tar stream in `file`. How it is packed shows in its first bytes: media types are often wrong about it.
pub(super) fn unpack(file: File) -> io::Result<Box<dyn Read>> {
    let mut source = BufReader::with_capacity(64 * 1024, file);
    let magic = source.fill_buf()?;
    if magic.starts_with(b"\x1f\x8b") {
        return Ok(Box::new(MultiGzDecoder::new(source)));
    }
    if magic.starts_with(b"\x28\xb5\x2f\xfd") || is_skippable_frame(magic) {
        return Ok(Box::new(ZstdReader::new(source)?));
    }
    Ok(Box::new(source))
}

/// Frames of this kind hold no content; zstd:chunked layers have them.
fn is_skippable_frame(magic: &[u8]) -> bool {
    magic.len() >= 4 && magic[0] & 0xf0 == 0x50 && magic[1..4] == [0x2a, 0x4d, 0x18]
}

/// Reads all frames of a zstd stream, one after the other.
struct ZstdReader<R> {
    source: R,
    decoder: FrameDecoder,
    in_frame: bool,
}

impl<R: BufRead> ZstdReader<R> {
    fn new(source: R) -> io::Result<Self> {
        /// The header of a frame with the smallest window.
        const PRIMER: &[u8] = b"\x28\xb5\x2f\xfd\x00\x00";
        let mut decoder = FrameDecoder::new();
        // A decoder checks how much memory a frame asks for (100 MiB at most) from its second frame on only.
        decoder.init(PRIMER).map_err(io::Error::other)?;
        Ok(Self { source, decoder, in_frame: false })
    }

    /// Starts the next frame that has content; `false` at the end of the stream.
    fn next_frame(&mut self) -> io::Result<bool> {
        while !self.source.fill_buf()?.is_empty() {
            match self.decoder.reset(&mut self.source) {
                Ok(()) => return Ok(true),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => {
                    io::copy(&mut (&mut self.source).take(length.into()), &mut io::sink())?;
                }
                Err(error) => return Err(io::Error::other(error)),
            }
        }
        Ok(false)
    }
}

impl<R: BufRead> Read for ZstdReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if !self.in_frame {
                if !self.next_frame()? {
                    return Ok(0);
                }
                self.in_frame = true;
            }
            while self.decoder.can_collect() < buffer.len() && !self.decoder.is_finished() {
                let missing = buffer.len() - self.decoder.can_collect();
                self.decoder
                    .decode_blocks(&mut self.source, BlockDecodingStrategy::UptoBytes(missing))
                    .map_err(io::Error::other)?;
            }
            let read = self.decoder.read(buffer)?;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            self.in_frame = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, Write};

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};

    use super::*;

    fn unpacked(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut file = tempfile::tempfile()?;
        file.write_all(bytes)?;
        file.rewind()?;
        let mut result = Vec::new();
        unpack(file)?.read_to_end(&mut result)?;
        Ok(result)
    }

    fn text() -> Vec<u8> {
        (0..100_000_u32).flat_map(|i| (i / 7).to_le_bytes()).collect()
    }

    #[test]
    fn plain_gzip_and_zstd_are_told_apart_by_their_bytes() {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(&text()).unwrap();
        let gzip = gzip.finish().unwrap();
        let zstd = compress_to_vec(&text()[..], CompressionLevel::Fastest);
        assert_eq!(unpacked(&text()).unwrap(), text());
        assert_eq!(unpacked(&gzip).unwrap(), text());
        assert_eq!(unpacked(&zstd).unwrap(), text());
        // Cut short, both are errors and not shorter files.
        assert!(unpacked(&gzip[..gzip.len() - 9]).is_err());
        assert!(unpacked(&zstd[..zstd.len() - 9]).is_err());
        assert_eq!(unpacked(b"").unwrap(), b"");
    }

    #[test]
    fn all_frames_are_read_and_skippable_ones_skipped() {
        let skippable = b"\x5e\x2a\x4d\x18\x03\0\0\0abc";
        let frame = compress_to_vec(&text()[..], CompressionLevel::Fastest);
        let empty = compress_to_vec(&b""[..], CompressionLevel::Fastest);
        let stream = [skippable, &frame[..], &empty, &skippable[..], &frame].concat();
        assert_eq!(unpacked(&stream).unwrap(), [text(), text()].concat());
    }

    #[test]
    fn a_zstd_frame_that_asks_for_too_much_memory_is_refused() {
        // A window of 2^41 bytes, in the first frame.
        let message = unpacked(b"\x28\xb5\x2f\xfd\x00\xf8\x01\0\0").unwrap_err().to_string();
        assert!(message.to_lowercase().contains("window"), "{message}");
    }
}
