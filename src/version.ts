/** The version of this build; `scripts/generate.ts` keeps it equal to the one in package.json. */
export const VERSION = '0.1.0';
