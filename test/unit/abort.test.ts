import { readdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { describe, expect, it, vi } from 'vitest';
import { follow, onAbort, pause, within } from '../../src/abort.ts';
import { stopClock } from './clock.ts';

describe('what follows a signal', () => {
  it('is called when it fires, once, and not when it was taken back', () => {
    const source = new AbortController();
    const [stays, goes] = [vi.fn(), vi.fn()];
    onAbort(source.signal, stays);
    onAbort(source.signal, goes)();
    source.abort();
    source.abort();
    expect([stays.mock.calls.length, goes.mock.calls.length]).toEqual([1, 0]);
  });

  it('is called at once when it has fired', () => {
    const late = vi.fn();
    onAbort(AbortSignal.abort(), late);
    expect(late).toHaveBeenCalledOnce();
  });

  it('has one listener, however many follow', () => {
    const { signal } = new AbortController();
    const add = vi.spyOn(signal, 'addEventListener');
    for (let count = 0; count < 100; count += 1) follow(signal);
    expect(add).toHaveBeenCalledOnce();
  });

  it('fires with the first of several, for its reason, until it is released', () => {
    const [one, other] = [new AbortController(), new AbortController()];
    const [following, released] = [follow(one.signal, other.signal), follow(one.signal, other.signal)];
    released.release();
    other.abort('why');
    one.abort('too late');
    expect(following.signal).toMatchObject({ aborted: true, reason: 'why' });
    expect(released.signal.aborted).toBe(false);
  });
});

describe('what has to be over within a time', () => {
  const never = (signal: AbortSignal) => pause(Number.MAX_SAFE_INTEGER, signal);

  it('gets a signal then, with the reason why', async () => {
    const clock = stopClock();
    const ended = within(1000, undefined, never, () => new Error('too long')).catch((error: Error) => error.message);
    await clock.advance(1000);
    expect(await ended).toBe('too long');
  });

  it('may begin the time anew', async () => {
    const clock = stopClock();
    const result = within(1000, undefined, async (signal, again) => {
      again(5000, () => new Error('much too long'));
      await pause(4000, signal);
      return 'done';
    });
    await clock.advance(4000);
    expect(await result).toBe('done');
  });

  it('ends with whatever it is part of', async () => {
    const outer = new AbortController();
    const ended = within(1000, outer.signal, never).catch((reason: unknown) => reason);
    outer.abort('cancelled');
    expect(await ended).toBe('cancelled');
  });
});

it('no other file makes signals that Node 20 may lose, or listens by itself to one that is shared', () => {
  const source = resolve(import.meta.dirname, '../../src');
  const files = readdirSync(source, { recursive: true, encoding: 'utf8' }).filter(file => file.endsWith('.ts'));
  const withFault = files.filter(file => /AbortSignal\.(any|timeout)\(/.test(readFileSync(join(source, file), 'utf8')));
  expect(files).toContain('abort.ts');
  expect(withFault).toEqual([]);
});
