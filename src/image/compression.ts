import { Duplex } from 'node:stream';
import zlib from 'node:zlib';
import { getExecOutput } from '@actions/exec';
import { childEnvironment } from '../child-environment.ts';
import { SideloadError } from '../errors.ts';
import { findProgram } from '../find-program.ts';
import type { Compression } from './image.ts';
import { type Program, startProgram } from './program.ts';

/** How many leading bytes {@link sniffCompression} wants. */
export const MAGIC_BYTES = 4;
// Measured on 600 MB of /usr with hashing on both sides, 2 cores: 2.8 s with 1 MiB, 3.1 s with 128 or 256 KiB.
const CHUNK_BYTES = 1 << 20;

/** One compression or decompression under way: a stream to put into a pipeline, and its owner's end of it. */
export interface Filter {
  readonly stream: Duplex;
  /** A program reads what is written to it at some later time. */
  readonly isProgram: boolean;
  /** Settles when the filter itself has ended well, to be awaited after the pipeline; rejects when it has not. */
  finished(): Promise<void>;
  /** Ends it early. Harmless afterwards. */
  stop(): void;
}

/** What a user may ask for. */
export type CompressionSetting = 'auto' | Compression;

/** The way in which this run compresses layers. */
export interface Codec {
  /** For the log. */
  readonly name: string;
  readonly compression: Compression;
  /** Compression and level, as in `zstd-1`: equal layers with equal labels need not be compressed again. */
  readonly label: string;
  /** Undefined when layers are left as they are. */
  readonly start?: (signal: AbortSignal) => Filter;
}

/** The compression that the first bytes of a file show: RFC 1952 for gzip, RFC 8878 for zstd. File names prove nothing. */
export function sniffCompression(head: Buffer): Compression {
  if (head[0] === 0x1f && head[1] === 0x8b) return 'gzip';
  if (head.length >= 4 && head.readUInt32LE(0) === 0xfd2fb528) return 'zstd';
  // A skippable frame: where zstd:chunked and pzstd begin.
  if (head.length >= 4 && head.readUInt32LE(0) >>> 4 === 0x184d2a5) return 'zstd';
  return 'none';
}

/**
 * What one way of compressing costs, in bytes of the layer per second: measured on one core of an AMD EPYC (encoder) and
 * with containerd 2.1 on two busy ones (import), on 200 and 728 MB of /usr (docs/notes/speed.md).
 */
const WAYS = [
  { compression: 'zstd', encodedPerSecond: 327e6, importedPerSecond: 112e6, sentShare: 0.52 },
  { compression: 'gzip', encodedPerSecond: 83e6, importedPerSecond: 112e6, sentShare: 0.53 },
  { compression: 'none', encodedPerSecond: Number.POSITIVE_INFINITY, importedPerSecond: 61e6, sentShare: 1 },
] as const;

/**
 * Chooses what is soonest on a node. Encoding, sending and importing overlap, so that the slowest of them counts; of equals
 * the first is taken, as zstd spares the runner most.
 * @param linkBytesPerSecond undefined when it is not known; the choice does not hang on it, as the nodes' import is slowest
 * @param available what this runner can do
 */
export function chooseCompression(
  linkBytesPerSecond: number | undefined,
  available: ReadonlySet<Compression>,
): Compression {
  const seconds = (way: (typeof WAYS)[number]) =>
    Math.max(
      1 / way.encodedPerSecond,
      1 / way.importedPerSecond,
      linkBytesPerSecond === undefined ? 0 : way.sentShare / linkBytesPerSecond,
    );
  const [first = WAYS[2], ...others] = WAYS.filter(({ compression }) => available.has(compression));
  return others.reduce<(typeof WAYS)[number]>((best, way) => (seconds(way) < seconds(best) ? way : best), first)
    .compression;
}

/**
 * Finds the encoder for a setting: zstd level 1 of Node (22.15 and later), else of the `zstd` program.
 * @throws SideloadError INPUT_INVALID when zstd is asked for by name and cannot be had.
 */
export async function chooseCodec(setting: CompressionSetting, signal: AbortSignal): Promise<Codec> {
  const zstd = setting === 'auto' || setting === 'zstd' ? await findZstd(signal) : undefined;
  if (setting === 'zstd' && zstd === undefined) {
    throw new SideloadError('INPUT_INVALID', '`compression: zstd` needs zstd, which this Node and this machine lack', {
      hint: 'Install the `zstd` program on the runner, run Node 22.15 or later, or leave the choice to `auto`.',
    });
  }
  const chosen =
    setting === 'auto'
      ? chooseCompression(undefined, new Set(zstd === undefined ? ['gzip', 'none'] : ['zstd', 'gzip', 'none']))
      : setting;
  if (chosen === 'none') return { name: 'nothing', compression: 'none', label: 'none' };
  if (chosen === 'zstd' && zstd !== undefined) return zstd;
  return gzipCodec(setting === 'gzip' ? 'gzip' : 'gzip, because neither this Node nor the machine has zstd');
}

async function findZstd(signal: AbortSignal): Promise<Codec | undefined> {
  const codec = { compression: 'zstd', label: 'zstd-1' } as const;
  // No ZSTD_c_nbWorkers: with it Node 24.21 throws ERR_STREAM_PUSH_AFTER_EOF out of zlib, and catching is impossible.
  if (typeof zlib.createZstdCompress === 'function') {
    const options = { chunkSize: CHUNK_BYTES, params: { [zlib.constants.ZSTD_c_compressionLevel]: 1 } };
    return { ...codec, name: 'zstd', start: () => inProcess(endsOnce(zlib.createZstdCompress(options))) };
  }
  if (!(await hasZstd(signal))) return undefined;
  const args = ['-1', '-q', '-c', '-T2'];
  return { ...codec, name: 'zstd (program)', start: signal => byProgram(startProgram('zstd', args, signal)) };
}

function gzipCodec(name: string): Codec {
  return {
    name,
    compression: 'gzip',
    label: 'gzip-1',
    start: () => inProcess(zlib.createGzip({ level: 1, chunkSize: CHUNK_BYTES })),
  };
}

/**
 * Starts decompressing.
 * @throws SideloadError ARCHIVE_INVALID when this machine has nothing that reads zstd.
 */
export async function startDecompression(
  compression: Exclude<Compression, 'none'>,
  signal: AbortSignal,
): Promise<Filter> {
  if (compression === 'gzip') return inProcess(zlib.createGunzip({ chunkSize: CHUNK_BYTES }));
  // The program first: Node's stream stops after the first of several frames and takes that for the end.
  if (await hasZstd(signal)) return byProgram(startProgram('zstd', ['-d', '-q', '-c'], signal));
  if (typeof zlib.createZstdDecompress === 'function') return firstFrame();
  throw new SideloadError('ARCHIVE_INVALID', 'it is compressed with zstd, which this machine cannot read', {
    hint: 'Install the `zstd` program on the runner, or run Node 22.15 or later.',
  });
}

/** It says its version at once, so that it needs no end from us: @actions/exec has none to give. */
async function hasZstd(signal: AbortSignal): Promise<boolean> {
  signal.throwIfAborted();
  const path = await findProgram('zstd');
  if (path === undefined) return false;
  const options = { silent: true, ignoreReturnCode: true, env: childEnvironment() };
  const { exitCode } = await getExecOutput(path, ['--version'], options);
  return exitCode === 0;
}

/**
 * When `end` comes while a chunk is still waiting, Node 24.21 ends the frame with that chunk and appends an empty frame:
 * equal input would have different digests, by chance. So the end waits for all that was written.
 */
function endsOnce<T extends Duplex>(stream: T): T {
  const end = stream.end.bind(stream);
  stream.end = () => {
    stream.write(Buffer.alloc(0), error => {
      if (!error) end();
    });
    return stream;
  };
  return stream;
}

function inProcess(stream: Duplex): Filter {
  return { stream, isProgram: false, finished: async () => {}, stop: () => stream.destroy() };
}

function firstFrame(): Filter {
  const stream = zlib.createZstdDecompress({ chunkSize: CHUNK_BYTES });
  let writtenBytes = 0;
  const write = stream._transform.bind(stream);
  stream._transform = (chunk: Buffer, encoding, done) => {
    writtenBytes += chunk.length;
    write(chunk, encoding, done);
  };
  return {
    stream,
    isProgram: false,
    stop: () => stream.destroy(),
    finished: async () => {
      if (stream.bytesWritten < writtenBytes) {
        throw new SideloadError('ARCHIVE_INVALID', 'it is compressed with zstd in several frames', {
          hint: 'Install the `zstd` program on the runner, or decompress the archive first.',
        });
      }
    },
  };
}

function byProgram(program: Program): Filter {
  return {
    stream: Duplex.from({ writable: program.stdin, readable: program.stdout }),
    isProgram: true,
    stop: program.stop,
    finished: async () => {
      const exit = await program.exit;
      if (exit.code !== 0) throw new Error(`zstd failed: ${exit.stderr || exit.reason}`);
    },
  };
}
