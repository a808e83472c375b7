import { connect, type Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { freeAround } from '../memory.ts';

/** What may wait in the socket before stdin pauses. The peer's channel window is the usual limit, and can be huge. */
const MAX_WAITING_BYTES = 4 * 1024 * 1024;

/**
 * Gives back the memory of what ssh2 writes, which nobody else holds, when it is sent: a plain packet goes with the view of
 * its length, the only part of it that is not encrypted.
 */
export function givingBack<Stream extends Duplex>(stream: Stream): Stream {
  const write = stream.write.bind(stream);
  stream.write = (chunk: string | Uint8Array) =>
    write(chunk, error => {
      if (!error && typeof chunk !== 'string') freeAround(chunk);
    });
  return stream;
}

/**
 * A TCP connection that gathers what is written during one turn of the event loop into one system call: ssh2 writes
 * each packet of 32 KiB on its own.
 */
export function coalescingSocket(host: string, port: number): Socket {
  const socket = givingBack(connect({ host, port, noDelay: true }));
  const write = socket.write.bind(socket);
  let isCorked = false;
  socket.write = (chunk: string | Uint8Array) => {
    if (!isCorked) {
      isCorked = true;
      socket.cork();
      setImmediate(() => {
        isCorked = false;
        socket.uncork();
      });
    }
    return write(chunk);
  };
  return socket;
}

/** Settles when the stream has room again or is closed; undefined when it has room now. */
export function drained(socket: Duplex): Promise<void> | undefined {
  if (socket.destroyed || socket.writableLength < MAX_WAITING_BYTES) return undefined;
  return new Promise(resolve => {
    const done = () => {
      socket.off('drain', done).off('close', done);
      resolve();
    };
    socket.on('drain', done).on('close', done);
  });
}
