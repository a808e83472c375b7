import { expect, it } from 'vitest';
import { parseResources } from '../../../src/smoke/resources.ts';

it('asks for little unless told, and limits nothing', () => {
  expect(parseResources([])).toEqual({ requests: { cpu: '10m', memory: '16Mi' }, limits: {} });
});

it('takes requests and limits', () => {
  expect(
    parseResources(['cpu=0.5', 'requests.memory=1Gi', 'limits.memory=2G', 'limits.ephemeral-storage=1Gi']),
  ).toEqual({
    requests: { cpu: '0.5', memory: '1Gi' },
    limits: { memory: '2G', 'ephemeral-storage': '1Gi' },
  });
});

it('names every item that is none', () => {
  expect(() => parseResources(['cpu', 'gpu=1', 'cpu=1m'])).toThrow('`smoke-resources` has "cpu", "gpu=1"');
  expect(() => parseResources(['cpu=-1', 'max.cpu=1', 'memory=1 Gi'])).toThrow('"cpu=-1", "max.cpu=1", "memory=1 Gi"');
});
