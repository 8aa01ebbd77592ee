import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../..', import.meta.url));
const read = (file: string) => readFileSync(join(root, file), 'utf8');
const listed = (folder: string) => readdirSync(join(root, folder), { recursive: true }).map(String);

const pages = [
  'README.md',
  'CONTRIBUTING.md',
  'CHANGELOG.md',
  'firmware-image/README.md',
  'test/vectors/README.md',
  ...listed('docs').flatMap((file) => (file.endsWith('.md') ? [`docs/${file}`] : [])),
];

/** Folders whose files a page may name by their paths, and by their bare names. */
const folders = ['src', 'test', 'build', 'firmware-image', 'docs'];
const bareNames = new Set(folders.flatMap((folder) => listed(folder).map((file) => basename(file))));

const withoutCode = (page: string) => page.replaceAll(/^```.*?^```$/gms, '');

/** The anchor that a heading gets, as repository hosts make it. */
const anchorOf = (heading: string) =>
  heading
    .toLowerCase()
    .replaceAll(/[^\p{L}\p{N} _-]/gu, '')
    .replaceAll(' ', '-');

const anchorsOf = (page: string) =>
  [...withoutCode(page).matchAll(/^#+ (.+)$/gm)].map(([, heading = '']) => anchorOf(heading));

/** What is wrong with the links of a page. */
function brokenLinks(file: string, page: string): string[] {
  const links = [...withoutCode(page).matchAll(/\]\(([^)\s]+)\)/g)].map(([, target = '']) => target);
  return links.flatMap((link) => {
    if (/^[a-z]+:/.test(link)) return [];
    const [path = '', anchor] = link.split('#');
    const target = path === '' ? file : join(dirname(file), path);
    if (!existsSync(join(root, target))) return [`${file}: ${link} leads nowhere`];
    return anchor === undefined || anchorsOf(read(target)).includes(anchor)
      ? []
      : [`${file}: ${target} has no heading #${anchor}`];
  });
}

/** Paths that a page names and that do not exist. A path may be relative to the root or to src/. */
function missingPaths(file: string, page: string): string[] {
  const fromRoot = new RegExp(`(?<![\\w/.-])(?:${folders.join('|')})/[\\w./*{}-]+`, 'g');
  const named = [...page.matchAll(fromRoot)].map(([path]) => path.replace(/\.$/, ''));
  const sources = [...page.matchAll(/`([\w./-]+\.(?:ts|mjs|cmd))`/g)].map(([, path = '']) => path);
  const isThere = (path: string) =>
    ['', 'src', 'test', dirname(file)].some((base) => existsSync(join(root, base, path))) ||
    bareNames.has(path);
  return [...new Set([...named, ...sources])]
    .filter((path) => !/[*{]|^dist\//.test(path) && !isThere(path))
    .map((path) => `${file}: there is no ${path}`);
}

describe('links and paths in the documents', () => {
  for (const file of pages)
    test(file, () => {
      const page = read(file);
      assert.deepEqual([...brokenLinks(file, page), ...missingPaths(file, page)], []);
    });
});

test('a link, an anchor and a path that lead nowhere are reported', () => {
  const page = 'See [a](nowhere.md), [b](README.md#no-heading), `wire/nowhere.ts` and src/nowhere/x.ts.';
  assert.deepEqual(
    [...brokenLinks('README.md', page), ...missingPaths('README.md', page)],
    [
      'README.md: nowhere.md leads nowhere',
      'README.md: README.md has no heading #no-heading',
      'README.md: there is no src/nowhere/x.ts',
      'README.md: there is no wire/nowhere.ts',
    ],
  );
});
