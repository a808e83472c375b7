import { describe, expect, it } from 'vitest';
import { SideloadError } from '../../../src/errors.ts';
import { formatReference, normalise, parseReference } from '../../../src/image/reference.ts';

const DIGEST = `sha256:${'0123456789abcdef'.repeat(4)}`;

describe('the name under which CRI looks up what a pod writes', () => {
  it.each([
    ['app', 'docker.io/library/app:latest'],
    ['app:v1', 'docker.io/library/app:v1'],
    ['u/app:1', 'docker.io/u/app:1'],
    ['u/team/app', 'docker.io/u/team/app:latest'],
    ['docker.io/app', 'docker.io/library/app:latest'],
    ['docker.io/u/app:1', 'docker.io/u/app:1'],
    ['index.docker.io/app:1', 'docker.io/library/app:1'],
    ['index.docker.io/u/app:1', 'docker.io/u/app:1'],
    ['localhost/app:1', 'localhost/app:1'],
    ['localhost:5000/app', 'localhost:5000/app:latest'],
    ['host:5000/x', 'host:5000/x:latest'],
    ['host:5000/x:2', 'host:5000/x:2'],
    ['registry.example/team/app:1', 'registry.example/team/app:1'],
    ['Registry/app', 'Registry/app:latest'],
    ['[fd00::1]:5000/app:1', '[fd00::1]:5000/app:1'],
    ['host/app', 'docker.io/host/app:latest'],
    ['a__b/c-d--e.f_g:T.a-g_', 'docker.io/a__b/c-d--e.f_g:T.a-g_'],
    [`app@${DIGEST}`, `docker.io/library/app@${DIGEST}`],
    [`app:v1@${DIGEST}`, `docker.io/library/app@${DIGEST}`],
    [`host:5000/app:v1@${DIGEST}`, `host:5000/app@${DIGEST}`],
  ])('%s is %s', (written, full) => {
    expect(normalise(written)).toBe(full);
    expect(normalise(full)).toBe(full);
  });
});

describe('a text that is no reference is refused and never repaired', () => {
  it.each([
    ['', /empty/],
    [' app', /" "/],
    ['app ', /" "/],
    ['app:v1\n', /"\\n"/],
    ['"app"', /cannot be part/],
    ["app'", /cannot be part/],
    ['app:$(id)', /"\$"/],
    ['app;id', /";"/],
    ['ápp', /"á"/],
    ['🐳', /cannot be part/],
    ['App', /lowercase/],
    ['u/App:1', /lowercase/],
    ['-app', /not valid/],
    ['--help', /not valid/],
    ['/app', /not valid/],
    ['u//app', /not valid/],
    ['app/', /not valid/],
    ['app..x', /not valid/],
    ['app_', /not valid/],
    ['app:', /tag/],
    ['app:.x', /tag/],
    [`app:${'x'.repeat(129)}`, /tag/],
    ['host:port/app', /registry/],
    ['-host.x/app', /registry/],
    ['app@', /digest/],
    ['app@sha256:abc', /digest/],
    [`app@${DIGEST.toUpperCase()}`, /digest/],
    [`app@sha512:${'0'.repeat(128)}`, /digest/],
    [`${'a'.repeat(256)}`, /longer than 255/],
    ['0123456789abcdef'.repeat(4), /image ID/],
    ['docker://app', /registry/],
    ['https://host/app', /registry/],
  ])('%j', (text, why) => {
    const parsing = () => parseReference(text);
    expect(parsing).toThrow(why);
    expect(parsing).toThrow(SideloadError);
    expect(() => normalise(text)).toThrow(expect.objectContaining({ code: 'INPUT_INVALID' }));
  });
});

describe('the parts of a reference', () => {
  it('tells the port of a registry from a tag', () => {
    expect(parseReference('host:5000/x')).toEqual({ registry: 'host:5000', repository: 'x' });
    expect(parseReference('host:5000')).toEqual({ repository: 'host', tag: '5000' });
  });

  it.each(['app', 'host:1/u/app:2', `localhost/app@${DIGEST}`, `app:1@${DIGEST}`])(
    '%s reads as it was written',
    text => {
      expect(formatReference(parseReference(text))).toBe(text);
    },
  );
});
