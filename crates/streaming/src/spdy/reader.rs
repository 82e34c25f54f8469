//! The side of a connection that reads: frames to streams.

use std::io;

use bytes::Bytes;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader};
use tokio::sync::mpsc;

use super::frame::{self, Head, Kind, MAX_CONTROL, Status, What};
use super::headers::{Deflater, Inflater};
use super::table::Table;
use super::{Settings, Stream, Violation};
use crate::connection::Shared;
use crate::pipe::{Arrival, CHUNK, ReadHalf, WriteHalf, cost};

/// Where the headers start in a SYN_STREAM.
const SYN_STREAM_HEADERS: usize = 10;

/// Where they start in other frames.
const HEADERS: usize = 4;

pub(super) struct Reader<R> {
    io: BufReader<R>,
    inflater: Inflater,
    /// For the replies to new streams, the only frames of this side that have a header block.
    deflater: Deflater,
    settings: Settings,
    shared: Shared,
    table: Table,
    opened: mpsc::Sender<Stream>,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    pub(super) fn new(
        io: R,
        settings: Settings,
        shared: Shared,
        table: Table,
        opened: mpsc::Sender<Stream>,
    ) -> io::Result<Self> {
        let io = BufReader::with_capacity(CHUNK, io);
        let (inflater, deflater) = (Inflater::new(), Deflater::new()?);
        Ok(Self { io, inflater, deflater, settings, shared, table, opened })
    }

    /// Reads until the connection is at its end.
    pub(super) async fn run(mut self) -> io::Result<()> {
        let result = self.frames().await;
        self.table.clear();
        result
    }

    async fn frames(&mut self) -> io::Result<()> {
        while let Some(head) = Head::read(&mut self.io).await? {
            self.shared.activity.touch();
            match head.what {
                What::Data { stream } => self.data(stream, head.is_last, head.length).await?,
                What::Control(Kind::Other) => self.skip(head.length).await?,
                // The client resets its streams before; nothing comes after.
                What::Control(Kind::GoAway) => return Ok(()),
                What::Control(kind) => {
                    let payload = self.payload(head.length).await?;
                    self.control(kind, head.is_last, &payload).await?;
                }
            }
        }
        Ok(())
    }

    /// Passes data on piece by piece, so that a frame's size does not matter. Waits while streams are not read.
    async fn data(&mut self, stream: u32, is_last: bool, mut length: usize) -> io::Result<()> {
        while length > 0 {
            let arrived = self.io.fill_buf().await?.len().min(length);
            if arrived == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if let Some(arrivals) = self.table.arrivals(stream) {
                let room = self.shared.read_room.clone().acquire_many_owned(cost(arrived)).await;
                let room = room.map_err(|_| io::ErrorKind::BrokenPipe)?;
                let bytes = Bytes::copy_from_slice(&self.io.buffer()[..arrived]);
                let _ = arrivals.send(Arrival::Chunk { bytes, room });
            }
            self.io.consume(arrived);
            length -= arrived;
        }
        if is_last {
            self.table.end(stream);
        }
        Ok(())
    }

    async fn payload(&mut self, length: usize) -> io::Result<Vec<u8>> {
        if length > MAX_CONTROL {
            return Err(Violation::FrameTooLarge(length).into());
        }
        let mut payload = vec![0; length];
        self.io.read_exact(&mut payload).await?;
        Ok(payload)
    }

    async fn skip(&mut self, length: usize) -> io::Result<()> {
        tokio::io::copy(&mut (&mut self.io).take(length as u64), &mut tokio::io::sink()).await?;
        Ok(())
    }

    async fn control(&mut self, kind: Kind, is_last: bool, payload: &[u8]) -> io::Result<()> {
        let stream = frame::stream_id(payload)?;
        match kind {
            Kind::SynStream => self.syn_stream(stream, is_last, payload).await?,
            Kind::SynReply | Kind::Headers => {
                // They say nothing, but the blocks that follow build on them.
                self.inflater.headers(payload.get(HEADERS..).ok_or(Violation::ShortFrame)?)?;
                if is_last {
                    self.table.end(stream);
                }
            }
            Kind::RstStream => self.table.reset(stream),
            // An even one would be the answer to a ping of this side, which sends none.
            Kind::Ping if stream % 2 == 1 => self.shared.reply(frame::ping(stream)).await?,
            Kind::Ping | Kind::GoAway | Kind::Other => {}
        }
        Ok(())
    }

    async fn syn_stream(&mut self, id: u32, is_last: bool, payload: &[u8]) -> io::Result<()> {
        let block = payload.get(SYN_STREAM_HEADERS..).ok_or(Violation::ShortFrame)?;
        let headers = self.inflater.headers(block)?;
        let refusal = if !self.table.is_next(id) {
            Some(Status::ProtocolError)
        } else if self.table.len() >= self.settings.max_streams {
            Some(Status::RefusedStream)
        } else {
            (!(self.settings.admit)(&headers)).then_some(Status::Cancel)
        };
        if let Some(status) = refusal {
            let mut frame = Vec::new();
            frame::rst_stream(id, status, &mut frame);
            return self.shared.reply(frame).await;
        }
        let (arrivals, reset) = self.table.open(id);
        self.shared.reply(frame::syn_reply(id, &self.deflater.no_headers()?)).await?;
        if is_last {
            self.table.end(id);
        }
        let (commands, room) = (self.shared.commands.clone(), self.shared.write_room.clone());
        let write = WriteHalf::new(id, commands, room, reset);
        let stream = Stream { id, headers, read: ReadHalf::new(arrivals), write };
        // A session that has all its streams takes no more of them.
        let _ = self.opened.send(stream).await;
        Ok(())
    }
}
