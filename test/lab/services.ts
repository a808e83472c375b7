import { access, readFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { join } from 'node:path';
import { tail, until } from './command.ts';
import { enter, enterMust } from './machine.ts';
import type { LabMachine } from './state.ts';

/** A program that a machine keeps running. */
export interface Service {
  readonly name: string;
  readonly argv: readonly string[];
  /** A socket in the machine that is there when the service is. */
  readonly socket?: string;
  /** A TCP address that answers when the service is there. */
  readonly listen?: { readonly address: string; readonly port: number };
  readonly readyWithinMs?: number;
  /** Started anew when it ends before it answers, as systemd does. */
  readonly isInsistent?: boolean;
}

/**
 * Starts a service in a machine, and waits until it answers. Its output goes to /var/log/lab/NAME.log there.
 * @throws with the end of that log when it does not come up in time.
 */
export async function startService(machine: LabMachine, service: Service): Promise<void> {
  const { name, argv } = service;
  const script = `mkdir -p /var/log/lab; name=$1; shift; setsid "$@" >>/var/log/lab/$name.log 2>&1 </dev/null & echo $! >/run/lab/$name.pid`;
  const launch = () => enterMust(machine, ['sh', '-c', script, 'sh', name, ...argv]);
  if (service.socket !== undefined) await enterMust(machine, ['rm', '-f', service.socket]);
  await launch();
  try {
    await until(`service ${name} of ${machine.name}`, service.readyWithinMs ?? 30_000, async () => {
      if (!(await isRunning(machine, name))) {
        if (service.isInsistent !== true) return 'ended' as const;
        await launch();
      }
      if (service.socket !== undefined) await access(join(machine.root, service.socket));
      if (service.listen) await answers(service.listen.address, service.listen.port);
      return 'ready' as const;
    }).then(state => {
      if (state === 'ended') throw new Error(`service ${name} of ${machine.name} ended at once`);
    });
  } catch (cause) {
    throw await withLog(machine, name, cause as Error);
  }
}

/** The error, with the end of a service's log. */
export async function withLog(machine: LabMachine, name: string, cause: Error): Promise<Error> {
  const log = await readFile(join(machine.root, `/var/log/lab/${name}.log`), 'utf8').catch(() => '');
  return new Error(`${cause.message}\n${tail(log)}`, { cause });
}

/** Ends a service: asks, and after 15 s makes it. What it started (sessions, containers) goes on, as under systemd. */
export async function stopService(machine: LabMachine, name: string): Promise<void> {
  const pid = await servicePid(machine, name);
  if (pid === undefined) return;
  await enter(machine, ['kill', String(pid)]);
  // Gone is out of the process table: a zombie's threads may still be at work, and pgrep still finds it.
  const gone = async (): Promise<boolean> => (await processState(machine, pid)) === undefined;
  await until(`the end of ${name}`, 15_000, gone).catch(async () => {
    await enter(machine, ['kill', '-KILL', String(pid)]);
    await until(`the end of ${name}`, 5_000, gone);
  });
}

async function servicePid(machine: LabMachine, name: string): Promise<number | undefined> {
  const text = await readFile(join(machine.root, `/run/lab/${name}.pid`), 'utf8').catch(() => '');
  return Number(text.trim()) || undefined;
}

async function isRunning(machine: LabMachine, name: string): Promise<boolean> {
  const pid = await servicePid(machine, name);
  if (pid === undefined) return false;
  return !['Z', 'X', undefined].includes(await processState(machine, pid));
}

/** The letter that ps shows for a process, by the machine's own number of it; undefined when there is none. */
async function processState(machine: LabMachine, pid: number): Promise<string | undefined> {
  const stat = await readFile(join(machine.root, `/proc/${pid}/stat`), 'utf8').catch(() => '');
  return /\) (\S) /.exec(stat)?.[1];
}

/** Resolves when somebody accepts a connection there. */
export function answers(address: string, port: number, timeoutMs = 1_000): Promise<true> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host: address, port, timeout: timeoutMs });
    const fail = (error: Error): void => {
      socket.destroy();
      reject(error);
    };
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('timeout', () => fail(new Error(`${address}:${port} did not answer`)));
    socket.once('error', fail);
  });
}
