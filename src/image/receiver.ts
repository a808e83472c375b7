import { randomBytes, randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { pipeline } from 'node:stream/promises';
import { follow } from '../abort.ts';
import { type Digest, digestOf, parseDigest } from './digest.ts';
import { type ArchiveFile, METADATA_MAX_BYTES, METADATA_TOTAL_MAX_BYTES } from './entries.ts';
import { asObject, asText } from './json.ts';
import { proveStored, type ReceiverStore, startUpload, type Upload } from './received.ts';

/** A manifest or an index that was pushed. */
export interface PushedManifest {
  readonly digest: Digest;
  readonly mediaType: string;
  readonly bytes: Buffer;
}

/** A place on this machine that an engine pushes one image to. */
export interface Receiver {
  /** As in `127.0.0.1:PORT`. */
  readonly host: string;
  /** The repository: the only one there is, and nobody can guess it. */
  readonly repository: string;
  /** Everything that was uploaded, and the layers that it was told are here. */
  readonly blobs: ReadonlyMap<Digest, ArchiveFile>;
  readonly manifests: ReadonlyMap<Digest, PushedManifest>;
  /** What each tag names. */
  readonly tags: ReadonlyMap<string, Digest>;
  /** How many requests for the repository have come: none means that whoever pushed did so elsewhere. */
  requests(): number;
  /** Fires when content cannot be stored; the reason says why. */
  readonly failed: AbortSignal;
  /** Ends all uploads and the server. */
  close(): Promise<void>;
}

interface State {
  readonly repository: string;
  readonly store: ReceiverStore;
  readonly signal: AbortSignal;
  readonly blobs: Map<Digest, ArchiveFile>;
  readonly manifests: Map<Digest, PushedManifest>;
  readonly tags: Map<string, Digest>;
  readonly uploads: Map<string, Session>;
  readonly failure: AbortController;
  readonly limits: ReceiverLimits;
  /** What may still be kept in memory. */
  roomBytes: number;
}

/** What whoever pushes may take up. */
export interface ReceiverLimits {
  /** Uploads that were begun and not ended; docker pushes five layers at a time, podman six. */
  readonly maxUploads: number;
  /** How long an upload may lie still: between two requests, and in the middle of one. */
  readonly idleMs: number;
}

const LIMITS: ReceiverLimits = { maxUploads: 64, idleMs: 120_000 };
const MAX_CONNECTIONS = 256;
/** What an entry costs besides its bytes. */
const ENTRY_BYTES = 1 << 10;

interface Session {
  readonly upload: Upload;
  /** A request is adding to it. */
  busy: boolean;
  /** Ends it when no request comes. */
  timer: NodeJS.Timeout | undefined;
}

/** One request to the repository. */
interface Call {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  /** What comes after the repository, as in `blobs/uploads/ID`. */
  readonly path: string;
  readonly query: URLSearchParams;
}

/** An answer that is an error (OCI distribution-spec, error codes). */
class Refusal {
  readonly status: number;
  readonly code: string;
  readonly message: string;
  readonly headers: Readonly<Record<string, string>>;
  constructor(status: number, code: string, message: string, headers: Readonly<Record<string, string>> = {}) {
    this.status = status;
    this.code = code;
    this.message = message;
    this.headers = headers;
  }
}

const TAG = /^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$/;

/**
 * Starts the pushing half of a registry (OCI distribution-spec) on the loopback interface, for one repository with a
 * name of 128 random bits. Layers stream into the store, manifests and configs stay in memory.
 */
export async function openReceiver(
  prefix: string,
  store: ReceiverStore,
  signal: AbortSignal,
  limits: ReceiverLimits = LIMITS,
): Promise<Receiver> {
  const closing = follow(signal);
  const state: State = {
    repository: `${prefix}-${randomBytes(16).toString('hex')}/image`,
    store,
    signal: closing.signal,
    blobs: new Map(),
    manifests: new Map(),
    tags: new Map(),
    uploads: new Map(),
    failure: new AbortController(),
    limits,
    roomBytes: METADATA_TOTAL_MAX_BYTES,
  };
  let requests = 0;
  const running = new Set<Promise<void>>();
  const server = createServer({ requestTimeout: 0, keepAliveTimeout: 0 }, (request, response) => {
    if (request.url?.startsWith(`/v2/${state.repository}/`)) requests += 1;
    const job = answer(state, request, response);
    running.add(job);
    job.finally(() => running.delete(job));
  });
  server.maxConnections = MAX_CONNECTIONS;
  server.listen({ host: '127.0.0.1', port: 0 });
  await once(server, 'listening');
  return {
    host: `127.0.0.1:${(server.address() as AddressInfo).port}`,
    repository: state.repository,
    blobs: state.blobs,
    manifests: state.manifests,
    tags: state.tags,
    requests: () => requests,
    failed: state.failure.signal,
    async close() {
      closing.abort();
      for (const { upload, timer } of state.uploads.values()) {
        clearTimeout(timer);
        upload.cancel();
      }
      const closed = once(server, 'close');
      server.close();
      server.closeAllConnections();
      await Promise.allSettled(running);
      await closed;
    },
  };
}

/** Never rejects. */
async function answer(state: State, request: IncomingMessage, response: ServerResponse): Promise<void> {
  response.on('error', () => {}); // whoever asked has gone
  response.setHeader('Docker-Distribution-API-Version', 'registry/2.0');
  try {
    const [pathname = '', search] = (request.url ?? '').split('?', 2);
    const own = `/v2/${state.repository}/`;
    if (pathname === '/v2/' || pathname === '/v2') send(response, 200, {}, '{}');
    else if (!pathname.startsWith(own)) throw new Refusal(404, 'NAME_UNKNOWN', 'there is no such repository');
    else {
      const query = new URLSearchParams(search);
      await route(state, { request, response, path: pathname.slice(own.length), query });
    }
  } catch (error) {
    if (response.headersSent || response.destroyed) {
      response.destroy();
      return;
    }
    const { status, code, message, headers } =
      error instanceof Refusal ? error : new Refusal(500, 'UNKNOWN', 'the content could not be stored');
    const body = JSON.stringify({ errors: [{ code, message }] });
    // A body that nobody reads would be taken for the next request.
    if (!request.complete) response.setHeader('Connection', 'close');
    send(response, status, { ...headers, 'Content-Type': 'application/json' }, request.method === 'HEAD' ? '' : body);
  }
}

async function route(state: State, call: Call): Promise<void> {
  const { request, path } = call;
  const [, kind = '', rest = ''] = /^(blobs\/uploads|blobs|manifests)\/(.*)$/.exec(path) ?? [];
  const handler = HANDLERS[`${request.method} ${kind}${kind === 'blobs/uploads' && rest !== '' ? '/' : ''}`];
  if (handler !== undefined) await handler(state, call, rest);
  else if (kind === '') throw new Refusal(404, 'NAME_UNKNOWN', 'there is no such resource');
  else throw new Refusal(405, 'UNSUPPORTED', 'only pushing is possible here');
}

const HANDLERS: Readonly<Record<string, (state: State, call: Call, rest: string) => Promise<void>>> = {
  'HEAD blobs': sendBlob,
  'GET blobs': sendBlob,
  'POST blobs/uploads': beginUpload,
  'GET blobs/uploads/': tellUpload,
  'PATCH blobs/uploads/': appendToUpload,
  'PUT blobs/uploads/': finishUpload,
  'DELETE blobs/uploads/': cancelUpload,
  'HEAD manifests': sendManifest,
  'GET manifests': sendManifest,
  'PUT manifests': storeManifest,
};

async function sendBlob(state: State, { request, response }: Call, name: string): Promise<void> {
  const digest = digestOrRefuse(name);
  const file = state.blobs.get(digest) ?? (await findStored(state, digest));
  if (file === undefined) throw new Refusal(404, 'BLOB_UNKNOWN', 'this blob is not here');
  const headers = { 'Docker-Content-Digest': digest, 'Content-Type': 'application/octet-stream' };
  if (request.method === 'HEAD') {
    send(response, 200, { ...headers, 'Content-Length': String(file.sizeBytes) });
    return;
  }
  if (file.stored !== undefined) throw new Refusal(405, 'UNSUPPORTED', 'layers are not handed out');
  response.writeHead(200, { ...headers, 'Content-Length': String(file.sizeBytes) });
  await pipeline(file.open(), response, { signal: state.signal });
}

/** A layer that was stored before. Whoever hears that it is here does not upload it, so it belongs to the image. */
async function findStored(state: State, digest: Digest): Promise<ArchiveFile | undefined> {
  const stored = await Promise.resolve(state.store.find(digest)).catch((error: unknown) => {
    state.failure.abort(error);
    throw error;
  });
  if (stored === undefined) return undefined;
  // Of what was compressed here the size in the source is not known; engines want any, and none looks at it again.
  const file = { sizeBytes: stored.blob.sizeBytes, stored, open: stored.blob.open };
  state.blobs.set(digest, file);
  return file;
}

/** `?digest=` is the whole upload in one request; `?mount=` is refused by offering an upload, as the rules have it. */
async function beginUpload(state: State, call: Call): Promise<void> {
  if (state.uploads.size >= state.limits.maxUploads) {
    throw new Refusal(429, 'TOOMANYREQUESTS', `no more than ${state.limits.maxUploads} uploads at a time`);
  }
  const id = randomUUID();
  const fail = (reason: unknown) => state.failure.abort(reason);
  const session: Session = { upload: startUpload(state.store, state.signal, fail), busy: false, timer: undefined };
  state.uploads.set(id, session);
  awaitNext(state, id, session);
  if (call.query.has('digest')) {
    await finishUpload(state, call, id);
    return;
  }
  call.request.resume();
  send(call.response, 202, { ...progressOf(state, id, session), 'OCI-Chunk-Min-Length': '0' });
}

async function tellUpload(state: State, { response }: Call, id: string): Promise<void> {
  send(response, 204, progressOf(state, id, sessionOf(state, id)));
}

async function appendToUpload(state: State, { request, response }: Call, id: string): Promise<void> {
  const session = sessionOf(state, id);
  await append(state, id, session, request);
  send(response, 202, progressOf(state, id, session));
}

async function finishUpload(state: State, { request, response, query }: Call, id: string): Promise<void> {
  const session = sessionOf(state, id);
  const digest = digestOrRefuse(query.get('digest') ?? '');
  await append(state, id, session, request);
  const isRepeated = (await findStored(state, digest)) !== undefined;
  dropUpload(state, id);
  const received = await session.upload.finish();
  if (received.digest !== digest) {
    throw new Refusal(400, 'DIGEST_INVALID', `the content is ${received.digest}`);
  }
  if (received.file.stored === undefined) requireRoom(state, received.file.sizeBytes);
  state.blobs.set(digest, received.file);
  // Whoever uploads what is here does not remember its digest, and may ask for the diffID next time (podman).
  if (isRepeated && received.file.stored !== undefined)
    await proveStored(received.file.stored, state.store, state.signal);
  send(response, 201, { Location: `/v2/${state.repository}/blobs/${digest}`, 'Docker-Content-Digest': digest });
}

async function cancelUpload(state: State, { response }: Call, id: string): Promise<void> {
  const { upload } = sessionOf(state, id);
  dropUpload(state, id);
  upload.cancel();
  send(response, 204, {});
}

/** Adds the body of a request; one that breaks off takes its upload with it. */
async function append(state: State, id: string, session: Session, request: IncomingMessage): Promise<void> {
  const { 'content-range': range, 'content-length': length } = request.headers;
  const { upload } = session;
  if (session.busy) throw outOfOrder(state, id, session);
  if (range !== undefined) {
    const [, from, to] = /^(\d+)-(\d+)$/.exec(range) ?? [];
    if (from === undefined || Number(from) !== upload.sizeBytes()) throw outOfOrder(state, id, session);
    if (length !== undefined && Number(to) - Number(from) + 1 !== Number(length)) {
      throw new Refusal(400, 'SIZE_INVALID', 'Content-Range and Content-Length contradict each other');
    }
  }
  session.busy = true;
  clearTimeout(session.timer);
  try {
    await upload.append(request, state.limits.idleMs);
    awaitNext(state, id, session);
  } catch (error) {
    dropUpload(state, id);
    throw error;
  } finally {
    session.busy = false;
  }
}

/** Gives an upload up when nobody goes on with it. */
function awaitNext(state: State, id: string, session: Session): void {
  session.timer = setTimeout(() => {
    dropUpload(state, id);
    session.upload.cancel();
  }, state.limits.idleMs);
}

function dropUpload({ uploads }: State, id: string): void {
  clearTimeout(uploads.get(id)?.timer);
  uploads.delete(id);
}

function outOfOrder(state: State, id: string, session: Session): Refusal {
  const headers = progressOf(state, id, session);
  return new Refusal(416, 'BLOB_UPLOAD_INVALID', 'the next byte of this upload is another one', headers);
}

async function storeManifest(state: State, { request, response }: Call, reference: string): Promise<void> {
  const named = parseDigest(reference);
  if (named === undefined && !TAG.test(reference)) throw new Refusal(400, 'NAME_INVALID', 'that is no tag');
  const bytes = await readBody(request);
  const digest = digestOf(bytes);
  if (named !== undefined && named !== digest) {
    throw new Refusal(400, 'DIGEST_INVALID', `the content is ${digest}`);
  }
  const inside = asText(parseManifest(bytes).mediaType);
  const mediaType = request.headers['content-type'] ?? inside;
  if (mediaType === undefined) throw new Refusal(400, 'MANIFEST_INVALID', 'its media type is not known');
  requireRoom(state, bytes.length);
  state.manifests.set(digest, { digest, mediaType, bytes });
  if (named === undefined) state.tags.set(reference, digest);
  const location = `/v2/${state.repository}/manifests/${digest}`;
  send(response, 201, { Location: location, 'Docker-Content-Digest': digest });
}

async function sendManifest(state: State, { request, response }: Call, reference: string): Promise<void> {
  const digest = parseDigest(reference) ?? state.tags.get(reference);
  const manifest = digest === undefined ? undefined : state.manifests.get(digest);
  if (manifest === undefined) throw new Refusal(404, 'MANIFEST_UNKNOWN', 'this manifest is not here');
  const { mediaType, bytes } = manifest;
  const headers = {
    'Docker-Content-Digest': manifest.digest,
    'Content-Type': mediaType,
    'Content-Length': String(bytes.length),
  };
  send(response, 200, headers, request.method === 'HEAD' ? undefined : bytes);
}

async function readBody(request: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let sizeBytes = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    sizeBytes += chunk.length;
    if (sizeBytes > METADATA_MAX_BYTES) {
      throw new Refusal(413, 'SIZE_INVALID', `a manifest has at most ${METADATA_MAX_BYTES} bytes`);
    }
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

function parseManifest(bytes: Buffer) {
  try {
    return asObject(JSON.parse(bytes.toString('utf8')));
  } catch {
    throw new Refusal(400, 'MANIFEST_INVALID', 'it is not JSON');
  }
}

/** What is kept in memory is bounded. */
function requireRoom(state: State, sizeBytes: number): void {
  state.roomBytes -= sizeBytes + ENTRY_BYTES;
  if (state.roomBytes < 0) {
    throw new Refusal(413, 'SIZE_INVALID', `there is room for ${METADATA_TOTAL_MAX_BYTES} bytes of JSON`);
  }
}

function sessionOf({ uploads }: State, id: string): Session {
  const session = uploads.get(id);
  if (session === undefined) throw new Refusal(404, 'BLOB_UPLOAD_UNKNOWN', 'there is no such upload');
  return session;
}

function digestOrRefuse(text: string): Digest {
  const digest = parseDigest(text);
  if (digest === undefined) throw new Refusal(400, 'DIGEST_INVALID', 'that is no sha256 digest');
  return digest;
}

function progressOf({ repository }: State, id: string, { upload }: Session): Readonly<Record<string, string>> {
  return {
    Location: `/v2/${repository}/blobs/uploads/${id}`,
    Range: `0-${Math.max(0, upload.sizeBytes() - 1)}`,
    'Docker-Upload-UUID': id,
  };
}

function send(
  response: ServerResponse,
  status: number,
  headers: Readonly<Record<string, string>>,
  body?: string | Buffer,
): void {
  const length = status === 204 ? {} : { 'Content-Length': String(Buffer.byteLength(body ?? '')) };
  response.writeHead(status, { ...length, ...headers }).end(body);
}
