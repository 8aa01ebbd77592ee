// Installs npm packages and Debian packages that the machine lacks, and prints what it installs. Does nothing when all are there.
// Runs on the machine's own Node (20 or newer); everything after it runs on the pinned Node.
// Options: --tests, --image, --boot-loader install the Debian packages for this purpose.
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, readFileSync, statSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));

/** By purpose: pairs of a program (or file) that must exist and the Debian package that has it. */
const debianPackages = JSON.parse(readFileSync(new URL('debian-packages.json', import.meta.url), 'utf8'));

/** Whether node_modules has the versions that package-lock.json pins. */
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

/** Prints `why` and the command, and runs it. Ends this process when the command fails. */
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

// `npm ci` would refuse the lock file when a registry lacks the optional binaries of another platform. `install --no-save`
// respects the same lock file and does not change it.
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
