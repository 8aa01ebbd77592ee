// Installs what a fresh machine lacks, says what it installs, and does nothing when all is there.
// Runs on whatever Node the machine has (20 or newer); everything after it runs on the pinned Node.
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, readFileSync, statSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));

/** By purpose: the program (or file) that must exist, and the Debian package it comes from. */
const debianPackages = JSON.parse(readFileSync(new URL('debian-packages.json', import.meta.url), 'utf8'));

function modulesAreCurrent() {
  const stamp = `${root}node_modules/.package-lock.json`;
  if (!existsSync(stamp) || !existsSync(`${root}node_modules/.bin/node`)) return false;
  if (statSync(stamp).mtimeMs >= statSync(`${root}package-lock.json`).mtimeMs) return true;
  const wanted = JSON.parse(readFileSync(`${root}package-lock.json`, 'utf8')).packages;
  const found = JSON.parse(readFileSync(stamp, 'utf8')).packages;
  return Object.entries(wanted).every(
    ([path, entry]) => path === '' || entry.optional || found[path]?.version === entry.version,
  );
}

function run(command, args, why) {
  console.log(`postern: ${why}\n  $ ${command} ${args.join(' ')}`);
  try {
    execFileSync(command, args, {
      cwd: root,
      stdio: 'inherit',
      env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' },
    });
  } catch {
    console.error(`postern: this command failed; run it by hand to see why, then start again`);
    process.exit(1);
  }
}

const present = (program) =>
  program.includes('/')
    ? existsSync(program)
    : spawnSync('sh', ['-c', `PATH="$PATH:/usr/sbin:/sbin"; command -v ${program}`]).status === 0;

// Not `npm ci`: it refuses the lock file where a registry lacks the optional binaries of a foreign platform.
// `install --no-save` honours the same lock and leaves it as it is.
if (!modulesAreCurrent())
  run(
    'npm',
    ['install', '--no-save', '--no-audit', '--no-fund', '--loglevel=error'],
    'installing npm packages (once)',
  );

const release = existsSync('/etc/os-release') ? readFileSync('/etc/os-release', 'utf8') : '';
const canBuildImage = /^VERSION_CODENAME=bookworm$/m.test(release);
if (process.argv.includes('--image') && !canBuildImage)
  console.log(
    'postern: the firmware image is built and tested on Debian bookworm only; its tests are skipped here',
  );

const wanted = Object.entries(debianPackages).flatMap(([purpose, packages]) =>
  process.argv.includes(`--${purpose}`) && (purpose === 'tests' || canBuildImage) ? packages : [],
);
const missing = new Set(wanted.filter(([program]) => !present(program)).map(([, name]) => name));
if (missing.size > 0) {
  const sudo = process.getuid?.() === 0 ? [] : ['sudo'];
  const apt = (args, why) =>
    run([...sudo, 'apt-get'][0], [...sudo.slice(1), ...(sudo.length ? ['apt-get'] : []), ...args], why);
  apt(['update', '-qq'], 'reading the list of Debian packages');
  apt(
    ['install', '-y', '-qq', '--no-install-recommends', ...missing],
    `installing from Debian: ${[...missing].join(', ')}`,
  );
}
