import { closeSync, constants, createReadStream, fstatSync, openSync, readSync } from 'node:fs';
import { posix } from 'node:path';
import { pipeline } from 'node:stream';
import { createGunzip } from 'node:zlib';
import { asObject, asText } from './json.ts';

/** As much as an encoder takes in at once. */
const CHUNK_BYTES = 1 << 20;
/** A line is a file, or the header of one with what pads the one before: a longer one is a broken file. */
const LINE_MAX_CHARACTERS = 16 << 20;

/** `type` of a line (tar-split, `tar/storage`: FileType, SegmentType). */
const FILE = 1;
const SEGMENT = 2;

/** What one line stands for: bytes of the tar, or the place of what is in an unpacked file now. */
type Piece = { readonly bytes: Buffer } | { readonly name: string; readonly sizeBytes: number };

/** The bytes of a piece, to be read from the front. */
interface Source {
  readonly sizeBytes: number;
  /** Fills as much of the buffer as it can. */
  read(into: Buffer): number;
  close(): void;
}

/**
 * The tar that a layer was unpacked from, byte for byte. Its files are still in a directory; everything else that was in it
 * is in a tar-split file (github.com/vbatts/tar-split, with which Docker and podman do the same). Whether all came out as it
 * was, only the tar's digest tells.
 *
 * Small files are read without a turn of the event loop for each: a layer has tens of thousands of them, and a turn takes
 * several times as long as the reading. Others have theirs after each chunk of 1 MiB. A chunk has memory of its own,
 * which whoever gets it may free.
 * @param metadata a tar-split file, compressed with gzip
 * @param directory where the layer is unpacked
 * @throws Error when either cannot be read, and when a file is not what it was when it was unpacked
 */
export async function* joinTar(metadata: string, directory: string): AsyncGenerator<Buffer> {
  let chunk = Buffer.allocUnsafeSlow(CHUNK_BYTES);
  let filledBytes = 0;
  for await (const pieces of piecesOf(metadata)) {
    for (const piece of pieces) {
      const source = 'bytes' in piece ? sourceOf(piece.bytes) : openFile(directory, piece);
      try {
        for (let rest = source.sizeBytes; rest > 0; ) {
          const readBytes = source.read(chunk.subarray(filledBytes, filledBytes + rest));
          filledBytes += readBytes;
          rest -= readBytes;
          if (filledBytes < CHUNK_BYTES) continue;
          yield chunk;
          chunk = Buffer.allocUnsafeSlow(CHUNK_BYTES);
          filledBytes = 0;
        }
      } finally {
        source.close();
      }
    }
  }
  if (filledBytes > 0) yield chunk.subarray(0, filledBytes);
}

function sourceOf(bytes: Buffer): Source {
  let from = 0;
  return {
    sizeBytes: bytes.length,
    read(into) {
      const copiedBytes = bytes.copy(into, 0, from);
      from += copiedBytes;
      return copiedBytes;
    },
    close() {},
  };
}

/** Opens what is a file of this size, and nothing that blocks. As when it was unpacked, a name stays below the directory. */
function openFile(directory: string, { name, sizeBytes }: Extract<Piece, { readonly name: string }>): Source {
  const path = Buffer.concat([Buffer.from(directory), Buffer.from(posix.join('/', name), 'latin1')]);
  const file = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  const found = fstatSync(file);
  if (!found.isFile() || found.size !== sizeBytes) {
    closeSync(file);
    throw new Error(`${path} is not the file of ${sizeBytes} bytes that was unpacked there`);
  }
  return {
    sizeBytes,
    read(into) {
      const readBytes = readSync(file, into);
      if (readBytes === 0) throw new Error(`${path} has become shorter`);
      return readBytes;
    },
    close: () => closeSync(file),
  };
}

/** What the lines of a tar-split file stand for, some lines at a time. */
async function* piecesOf(metadata: string): AsyncGenerator<readonly Piece[]> {
  const text = createGunzip().setEncoding('utf8');
  pipeline(createReadStream(metadata), text, () => {}); // what it fails with, the reader of the text gets
  let rest = '';
  for await (const part of text as AsyncIterable<string>) {
    const lines = (rest + part).split('\n');
    rest = lines.pop() ?? '';
    if (rest.length > LINE_MAX_CHARACTERS) throw new Error(`${metadata} has a line without an end`);
    yield lines.flatMap(pieceOf);
  }
  yield pieceOf(rest);
}

/** Links, directories and devices are in a tar with their header alone. */
function pieceOf(line: string): readonly Piece[] {
  if (line === '') return [];
  const { type, size, name, name_raw: rawName, payload } = asObject(JSON.parse(line));
  if (type === SEGMENT) return [{ bytes: Buffer.from(asText(payload) ?? '', 'base64') }];
  if (type !== FILE || typeof size !== 'number' || size === 0) return [];
  // A name is bytes, which JSON cannot hold when they are not UTF-8.
  const bytes =
    asText(rawName) === undefined ? Buffer.from(asText(name) ?? '') : Buffer.from(String(rawName), 'base64');
  return [{ name: bytes.toString('latin1'), sizeBytes: size }];
}
