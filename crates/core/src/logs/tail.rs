//! Where the last lines of a file begin.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// How much is read at a time, from the end backwards.
const BLOCK_SIZE: usize = 8 * 1024;

/// The offset at which the last `lines` lines begin (`findTailLineStartIndex`). A last line without a newline does not
/// count as one. Blocks the thread while it reads.
pub(super) fn find_tail_line_start(file: &File, lines: u64) -> io::Result<u64> {
    let mut block = vec![0; BLOCK_SIZE];
    let mut newlines = 0;
    let mut right = file.metadata()?.len();
    while right > 0 {
        let left = right.saturating_sub(BLOCK_SIZE as u64);
        let block = &mut block[..(right - left) as usize];
        file.read_exact_at(block, left)?;
        // The line begins after the newline that is one more than wanted, counted from the end.
        for (index, _) in block.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
            newlines += 1;
            if newlines > lines {
                return Ok(left + index as u64 + 1);
            }
        }
        right = left;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn lines_are_counted_from_the_end() {
        let line = "a".repeat(BLOCK_SIZE);
        let mut file = tempfile::tempfile().unwrap();
        // Four lines longer than a block, and one that is not finished.
        write!(file, "{line}\n{line}\n{line}\n{line}\n{}", &line[BLOCK_SIZE / 2..]).unwrap();
        let length = (BLOCK_SIZE + 1) as u64;
        for (lines, start) in [(0, 4 * length), (1, 3 * length), (3, length), (4, 0), (9999, 0)] {
            assert_eq!(find_tail_line_start(&file, lines).unwrap(), start, "last {lines} lines");
        }
    }

    #[test]
    fn an_empty_file_begins_at_its_beginning() {
        assert_eq!(find_tail_line_start(&tempfile::tempfile().unwrap(), 3).unwrap(), 0);
    }

    #[test]
    fn a_newline_at_a_block_boundary_is_seen() {
        let mut file = tempfile::tempfile().unwrap();
        let last = "b".repeat(BLOCK_SIZE - 1);
        write!(file, "first\n{last}\n").unwrap();
        assert_eq!(find_tail_line_start(&file, 1).unwrap(), 6);
        assert_eq!(find_tail_line_start(&file, 2).unwrap(), 0);
    }
}
