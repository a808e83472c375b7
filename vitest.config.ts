import { defineConfig } from 'vitest/config';

const MINUTE = 60_000;

/** GitHub's language service: it imports JSON without saying so, which Node refuses and vite does not. */
const GITHUB = [/@actions\/(languageservice|workflow-parser|expressions)/];

/** Suites by what they need: nothing, an SSH server in the process, the bundle, real nodes, a real cluster. */
// biome-ignore lint/style/noDefaultExport: vitest asks for one.
export default defineConfig({
  test: {
    reporters: ['default'],
    projects: [
      {
        // Not about source maps of packages that lack their sources.
        logLevel: 'error',
        test: {
          name: 'unit',
          include: ['test/unit/**/*.test.ts', 'test/fuzz/**/*.test.ts'],
          testTimeout: MINUTE,
          server: { deps: { inline: GITHUB } },
        },
      },
      { test: { name: 'ssh', include: ['test/ssh/**/*.test.ts'], testTimeout: MINUTE } },
      { test: { name: 'bundle', include: ['test/bundle/**/*.test.ts'], testTimeout: 2 * MINUTE } },
      {
        test: {
          name: 'sources',
          include: ['test/sources/**/*.test.ts'],
          globalSetup: 'test/setup/sources.ts',
          fileParallelism: false,
          testTimeout: 2 * MINUTE,
          hookTimeout: 5 * MINUTE,
        },
      },
      {
        test: {
          name: 'node',
          include: ['test/node/**/*.test.ts'],
          globalSetup: 'test/setup/nodes.ts',
          fileParallelism: false,
          testTimeout: 3 * MINUTE,
          hookTimeout: 5 * MINUTE,
        },
      },
      {
        test: {
          name: 'cluster',
          include: ['test/cluster/**/*.test.ts'],
          globalSetup: 'test/setup/cluster.ts',
          fileParallelism: false,
          testTimeout: 3 * MINUTE,
          hookTimeout: 5 * MINUTE,
        },
      },
      {
        test: {
          name: 'runtimes',
          include: ['test/runtimes/**/*.test.ts'],
          globalSetup: 'test/setup/runtimes.ts',
          fileParallelism: false,
          testTimeout: 5 * MINUTE,
          hookTimeout: 5 * MINUTE,
        },
      },
      {
        test: {
          name: 'hostile',
          include: ['test/hostile/**/*.test.ts'],
          globalSetup: 'test/setup/hostile.ts',
          fileParallelism: false,
          testTimeout: 3 * MINUTE,
          hookTimeout: 5 * MINUTE,
        },
      },
      {
        test: {
          name: 'faults',
          include: ['test/faults/**/*.test.ts'],
          globalSetup: 'test/setup/faults.ts',
          fileParallelism: false,
          testTimeout: 5 * MINUTE,
          hookTimeout: 5 * MINUTE,
        },
      },
      {
        logLevel: 'error',
        test: {
          name: 'pipelines',
          include: ['test/pipelines/**/*.test.ts'],
          globalSetup: 'test/setup/pipelines.ts',
          fileParallelism: false,
          testTimeout: 5 * MINUTE,
          hookTimeout: 5 * MINUTE,
          server: { deps: { inline: GITHUB } },
        },
      },
      {
        test: {
          name: 'lab',
          include: ['test/lab/**/*.test.ts'],
          fileParallelism: false,
          testTimeout: 5 * MINUTE,
          hookTimeout: 5 * MINUTE,
        },
      },
    ],
  },
});
