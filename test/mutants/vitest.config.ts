import { defineConfig } from 'vitest/config';

/** What Stryker runs for each mutant: the tests of the pure part, without those that start many processes. */
// biome-ignore lint/style/noDefaultExport: vitest asks for one.
export default defineConfig({
  test: {
    include: [
      'test/unit/{check,retention,plan,preflight}.test.ts',
      'test/unit/{smoke,runtime}/*.test.ts',
      'test/unit/node/{retention,pin,promote}.test.ts',
    ],
    testTimeout: 20_000,
  },
});
