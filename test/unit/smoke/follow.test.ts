import { describe, expect, it, vi } from 'vitest';
import { SideloadError } from '../../../src/errors.ts';
import { followPods } from '../../../src/smoke/follow.ts';
import { stopClock } from '../clock.ts';
import { API_DOWN, fakeCluster, STATUS } from './cluster.ts';

/** Follows the pods of a cluster with one pod, `smoke`, and notes what it hears. */
async function follow(cluster = fakeCluster()) {
  await cluster.kubectl.createPod({ metadata: { name: 'smoke' } });
  cluster.calls.length = 0;
  const clock = stopClock();
  const heard: string[] = [];
  const end = new AbortController();
  const following = followPods(cluster.kubectl, {
    labelSelector: 'run=1',
    onPod: pod => heard.push(`${pod.metadata.name} ${pod.status?.phase}`),
    onList: names => heard.push(`list ${[...names].join()}`),
    onDeleted: pod => heard.push(`${pod.metadata.name} deleted`),
    onTrouble: message => heard.push(`trouble ${message}`),
    until: end.signal,
  });
  return { cluster, clock, heard, end, following };
}

describe('following pods', () => {
  it('hears of the state at first, and of every change', async () => {
    const { cluster, heard, end, following } = await follow();
    await cluster.watching();
    cluster.become('smoke', STATUS.running);
    cluster.remove('smoke');
    end.abort();
    await following;
    expect(heard).toEqual(['smoke Pending', 'list smoke', 'smoke Running', 'smoke deleted']);
    expect(cluster.calls).toEqual(['list', 'watch']);
  });

  it.each<[what: string, end: (cluster: ReturnType<typeof fakeCluster>) => void, trouble: string[]]>([
    ['ended, as every minute', cluster => cluster.endWatch(), []],
    ['broke off', cluster => cluster.endWatch(API_DOWN), [`trouble ${API_DOWN.message}`]],
    [
      'is too old (410 Gone)',
      cluster => {
        cluster.send({ type: 'ERROR', object: { code: 410, message: 'too old resource version' } });
        cluster.endWatch();
      },
      [],
    ],
  ])('begins again with a list when the watch %s', async (_what, endWatch, trouble) => {
    const { cluster, clock, heard, end, following } = await follow();
    await cluster.watching();
    endWatch(cluster);
    cluster.pods.delete('smoke');
    await clock.advance(1000);
    await cluster.watching();
    end.abort();
    await following;
    expect(heard).toEqual(['smoke Pending', 'list smoke', ...trouble, 'list ']);
    expect(cluster.calls).toEqual(['list', 'watch', 'list', 'watch']);
  });

  it('takes no bookmark for a pod', async () => {
    const { cluster, heard, end, following } = await follow();
    await cluster.watching();
    cluster.send({ type: 'BOOKMARK', object: { metadata: { resourceVersion: '7' } } });
    end.abort();
    await following;
    expect(heard).toEqual(['smoke Pending', 'list smoke']);
  });

  it('does not storm an API server whose watches end at once', async () => {
    const cluster = fakeCluster();
    vi.spyOn(cluster.kubectl, 'watchPods').mockImplementation(async () => {
      // Behind some proxies every watch ends like this.
      await new Promise(resolve => setTimeout(resolve, 10));
    });
    const { clock, end, following } = await follow(cluster);
    await clock.advance(5000);
    end.abort();
    await clock.advance(10);
    await following;
    expect(cluster.calls.length).toBeLessThanOrEqual(6);
  });

  it('asks again once a second while the API server is away', async () => {
    const cluster = fakeCluster();
    cluster.fail.list.push(API_DOWN, API_DOWN, API_DOWN);
    const { clock, heard, end, following } = await follow(cluster);
    await clock.advance(2999);
    expect(heard).toEqual(Array(3).fill(`trouble ${API_DOWN.message}`));
    await clock.advance(1);
    expect(heard.slice(3)).toEqual(['smoke Pending', 'list smoke']);
    end.abort();
    await following;
  });

  it('goes on for as long as the API server is away, and not when it knows the credentials no longer', async () => {
    const cluster = fakeCluster();
    cluster.fail.list.push(...Array(9).fill(API_DOWN));
    const { clock, heard, end, following } = await follow(cluster);
    await clock.advance(9000);
    expect(heard.slice(-2)).toEqual(['smoke Pending', 'list smoke']);
    const forbidden = new SideloadError('CLUSTER_REFUSED', 'Error from server (Forbidden): pods is forbidden');
    cluster.fail.list.push(...Array(3).fill(forbidden), API_DOWN, ...Array(5).fill(forbidden));
    cluster.endWatch(API_DOWN);
    const ended = following.catch(thrown => thrown);
    await clock.advance(20_000);
    expect(await ended).toBe(forbidden);
    expect(heard.filter(line => line.includes('Forbidden'))).toHaveLength(7);
    end.abort();
  });

  it('ends without an error while it waits, watches, or before it began', async () => {
    const waiting = await follow(Object.assign(fakeCluster(), { fail: { create: [], delete: [], list: [API_DOWN] } }));
    await waiting.clock.advance(10);
    waiting.end.abort();
    await waiting.following;
    const cluster = fakeCluster();
    await followPods(cluster.kubectl, {
      labelSelector: 'run=1',
      onPod: () => {},
      onDeleted: () => {},
      until: AbortSignal.abort(),
    });
    expect(cluster.calls).toEqual([]);
  });
});
