import { spawn } from 'node:child_process';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';

export interface GitServer {
  /** `http://127.0.0.1:PORT` */
  readonly url: string;
  /** Requests that came with a user and a password, as `USER:PASSWORD`. */
  readonly logins: readonly string[];
  close(): Promise<void>;
}

interface Options {
  /** Repositories by `GROUP/PROJECT.git`. */
  readonly directory: string;
  /** Paths that ask for a login. */
  readonly guarded?: RegExp;
}

/** Serves git repositories by git's own `http-backend` (CGI, RFC 3875), as a GitLab would. */
export async function serveGit({ directory, guarded }: Options): Promise<GitServer> {
  const logins: string[] = [];
  const server = createServer((request, response) => {
    const url = new URL(request.url ?? '/', 'http://localhost');
    const [, login] = /^Basic (.*)$/.exec(request.headers.authorization ?? '') ?? [];
    if (login !== undefined) {
      logins.push(Buffer.from(login, 'base64').toString());
    } else if (guarded?.test(url.pathname) === true) {
      response.writeHead(401, { 'WWW-Authenticate': 'Basic realm="git"' }).end();
      return;
    }
    const child = spawn('git', ['http-backend'], {
      env: {
        PATH: process.env.PATH,
        GIT_PROJECT_ROOT: directory,
        GIT_HTTP_EXPORT_ALL: '1',
        GIT_CONFIG_COUNT: '2',
        GIT_CONFIG_KEY_0: 'safe.directory',
        GIT_CONFIG_VALUE_0: '*',
        GIT_CONFIG_KEY_1: 'uploadpack.allowFilter',
        GIT_CONFIG_VALUE_1: 'true',
        PATH_INFO: url.pathname,
        QUERY_STRING: url.search.slice(1),
        REQUEST_METHOD: request.method,
        CONTENT_TYPE: request.headers['content-type'] ?? '',
        HTTP_CONTENT_ENCODING: request.headers['content-encoding'] ?? '',
        GIT_PROTOCOL: String(request.headers['git-protocol'] ?? ''),
      },
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    request.pipe(child.stdin);
    // A client that has what it wants does not wait for the end.
    child.stdin.on('error', () => undefined);
    let head = Buffer.alloc(0);
    child.stdout.on('data', (chunk: Buffer) => {
      if (response.headersSent) {
        response.write(chunk);
        return;
      }
      head = Buffer.concat([head, chunk]);
      const end = head.indexOf('\r\n\r\n');
      if (end >= 0) {
        const lines = head.subarray(0, end).toString().split('\r\n');
        const fields = lines.map(line => /^([^:]+): *(.*)$/.exec(line)).filter(match => match !== null);
        const headers = Object.fromEntries(fields.map(([, name, value]) => [name ?? '', value ?? '']));
        response.writeHead(Number.parseInt(headers.Status ?? '200', 10), headers);
        response.write(head.subarray(end + 4));
      }
    });
    child.on('close', () => response.end());
  });
  await new Promise<void>(done => server.listen(0, '127.0.0.1', done));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    logins,
    close: () => new Promise(done => server.close(() => done())),
  };
}
