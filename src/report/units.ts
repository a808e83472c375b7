const UNITS = ['B', 'kB', 'MB', 'GB', 'TB'];

/** Decimal units, as container engines print sizes: `650.1 MB`. */
export function formatBytes(bytes: number): string {
  let value = bytes;
  let unit = 0;
  // 999.95 would be printed as 1000.0.
  while (value >= (unit === 0 ? 1000 : 999.95) && unit < UNITS.length - 1) {
    value /= 1000;
    unit++;
  }
  return `${unit === 0 ? value : value.toFixed(1)} ${UNITS[unit]}`;
}

/** `0.4 s`, `12.3 s`, `2 min 5 s`. */
export function formatDuration(milliseconds: number, decimals: 0 | 1 = 1): string {
  const seconds = milliseconds / 1000;
  if (seconds < (decimals === 0 ? 59.5 : 59.95)) {
    return `${seconds.toFixed(decimals)} s`;
  }
  const whole = Math.round(seconds);
  return `${Math.floor(whole / 60)} min ${whole % 60} s`;
}
