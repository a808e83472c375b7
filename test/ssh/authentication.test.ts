import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { AuthContext } from 'ssh2';
import { expect, onTestFinished, test } from 'vitest';
import { failure, login, serve } from './login.ts';
import { CREDENTIALS, KEYS, type KeyPair } from './server.ts';

/** A real ssh-agent with these keys, for the length of a test. */
function agentWith(...keys: readonly KeyPair[]): { readonly socket: string; command(...args: string[]): void } {
  const folder = mkdtempSync(join(tmpdir(), 'ssh-test-'));
  const socket = join(folder, 'agent');
  const printed = execFileSync('ssh-agent', ['-s', '-a', socket], { encoding: 'utf8' });
  const pid = Number(/SSH_AGENT_PID=(\d+)/.exec(printed)?.[1]);
  onTestFinished(() => {
    process.kill(pid);
    rmSync(folder, { recursive: true });
  });
  const command = (...args: string[]) => {
    execFileSync('ssh-add', args, { env: { ...process.env, SSH_AUTH_SOCK: socket }, stdio: 'pipe' });
  };
  for (const [index, key] of keys.entries()) {
    const file = join(folder, `key-${index}`);
    writeFileSync(file, key.privateKey, { mode: 0o600 });
    command('-q', file);
  }
  return { socket, command };
}

/** Takes one public key and no other. */
const only = (key: KeyPair) => (context: AuthContext) => {
  const isIt = context.method === 'publickey' && context.key.data.toString('base64') === key.publicKey.split(' ')[1];
  if (isIt) context.accept();
  else context.reject(['publickey']);
};

test.each(['user', 'rsa', 'ecdsa'] as const)('an agent logs in with the key that the node takes: %s', async name => {
  const agent = agentWith(KEYS.ed25519, KEYS.user, KEYS.rsa, KEYS.ecdsa);
  const server = await serve({ authenticate: only(KEYS[name]) });
  const connection = await login(server, { authentication: { agent: agent.socket } });
  expect(await connection.run(['true'])).toMatchObject({ code: 0 });
});

test('a key that is given goes before the agent', async () => {
  const methods: string[] = [];
  const server = await serve({
    authenticate: context => {
      methods.push(context.method === 'publickey' ? context.key.data.toString('base64') : context.method);
      context.accept();
    },
  });
  await login(server, { authentication: { key: CREDENTIALS, agent: agentWith(KEYS.rsa).socket } });
  expect(new Set(methods)).toEqual(new Set([KEYS.user.publicKey.split(' ')[1]]));
});

test('an agent without keys is named, before the node is asked', async () => {
  const server = await serve();
  const agent = agentWith();
  const error = await failure(login(server, { authentication: { agent: agent.socket } }));
  expect(error).toMatchObject({ code: 'SSH_AUTH_FAILED', node: 'worker-1' });
  expect(error.message).toBe(`the ssh-agent at ${agent.socket} has no keys`);
  expect(server.sockets).toEqual([]);
});

test('an agent that is not there is named', async () => {
  const server = await serve();
  const error = await failure(login(server, { authentication: { agent: '/nonexistent/agent' } }));
  expect(error.code).toBe('SSH_AUTH_FAILED');
  expect(error.message).toMatch(/the ssh-agent at \/nonexistent\/agent does not answer: /);
});

test('an agent that says nothing is left after the limit', async () => {
  const server = await serve();
  const folder = mkdtempSync(join(tmpdir(), 'ssh-test-'));
  const silent = createServer(() => {}).listen(join(folder, 'agent'));
  onTestFinished(() => {
    silent.close();
    rmSync(folder, { recursive: true });
  });
  const authentication = { agent: join(folder, 'agent') };
  const error = await failure(login(server, { authentication, connectTimeoutMs: 300 }));
  expect(error).toMatchObject({ code: 'SSH_UNREACHABLE', node: 'worker-1' });
  expect(error.message).toContain('the ssh-agent on the runner has not answered within 0.3 s');
});

test('an agent that does not sign is named', async () => {
  const agent = agentWith(KEYS.user);
  const server = await serve({
    authenticate: context => {
      // Between the question whether the key would do, and the signature.
      if (context.method === 'publickey' && context.signature === undefined) agent.command('-D');
      context.accept();
    },
  });
  const error = await failure(login(server, { authentication: { agent: agent.socket } }));
  expect(error.code).toBe('SSH_AUTH_FAILED');
  expect(error.message).toContain('the ssh-agent refused to prove the login of deploy');
});

test('an agent whose keys the node refuses is told with the node', async () => {
  const server = await serve({ authenticate: only(KEYS.ecdsa) });
  const agent = agentWith(KEYS.user, KEYS.rsa);
  const error = await failure(login(server, { authentication: { agent: agent.socket } }));
  expect(error.code).toBe('SSH_AUTH_FAILED');
  expect(error.message).toContain(`refused the login of deploy with the keys of the ssh-agent at ${agent.socket}`);
});

/** Takes the password `swordfish` by one method. */
const byPassword =
  (method: 'password' | 'keyboard-interactive', prompts: readonly string[]) => (context: AuthContext) => {
    if (context.method === 'password' && method === 'password') {
      if (context.password === 'swordfish') context.accept();
      else context.reject([method]);
    } else if (context.method === 'keyboard-interactive' && method === 'keyboard-interactive') {
      const questions = prompts.map(prompt => ({ prompt, echo: false }));
      context.prompt(questions, '', '', answers => {
        if (answers.length === 1 && answers[0] === 'swordfish') context.accept();
        else context.reject([method]);
      });
    } else context.reject([method]);
  };

test.each(['password', 'keyboard-interactive'] as const)('a password is given by the method %s', async method => {
  const server = await serve({ authenticate: byPassword(method, ['Password: ']) });
  const connection = await login(server, { authentication: { key: CREDENTIALS, password: 'swordfish' } });
  expect(await connection.run(['true'])).toMatchObject({ code: 0 });
  const error = await failure(login(server, { authentication: { password: 'marlin' } }));
  expect(error.code).toBe('SSH_AUTH_FAILED');
  expect(error.message).toContain('the password');
  expect(error.message).not.toContain('marlin');
});

test('a password is no answer to several questions', async () => {
  const answers: string[][] = [];
  const server = await serve({
    authenticate: context => {
      if (context.method !== 'keyboard-interactive') return context.reject(['keyboard-interactive']);
      context.prompt([{ prompt: 'Password: ' }, { prompt: 'Token: ' }], '', '', given => {
        answers.push([...given]);
        context.reject(['keyboard-interactive']);
      });
    },
  });
  expect(await failure(login(server, { authentication: { password: 'swordfish' } }))).toMatchObject({
    code: 'SSH_AUTH_FAILED',
  });
  expect(answers).toEqual([['', '']]);
});

test('a key and then a password is given where the node wants both', async () => {
  const server = await serve({
    authenticate: context => {
      if (context.method === 'publickey') context.reject(['password'], true);
      else if (context.method === 'password' && context.password === 'swordfish') context.accept();
      else context.reject(['publickey']);
    },
  });
  const connection = await login(server, { authentication: { key: CREDENTIALS, password: 'swordfish' } });
  expect(await connection.run(['true'])).toMatchObject({ code: 0 });
});
