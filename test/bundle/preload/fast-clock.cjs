/** Time goes faster, by forty unless it is said: limits of minutes can be waited for. */
const FACTOR = Number(process.env.FAST_CLOCK ?? 40);

for (const name of ['setTimeout', 'setInterval']) {
  const real = globalThis[name];
  globalThis[name] = (act, milliseconds = 0, ...rest) => real(act, milliseconds / FACTOR, ...rest);
}
const now = performance.now.bind(performance);
performance.now = () => now() * FACTOR;
