// Asks the registry for known weaknesses of the packages in package-lock.json. Exits with 1 for one of severity high or
// critical in a package that is shipped. A registry that does not answer audits is said plainly, and is no failure: whoever
// works offline, or with a mirror, could not test anything otherwise.
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

const cwd = fileURLToPath(new URL('..', import.meta.url));
const { stdout } = spawnSync(
  'npm',
  ['audit', '--omit=dev', '--json', '--fetch-retries=0', '--fetch-timeout=30000'],
  {
    cwd,
    encoding: 'utf8',
    timeout: 120_000,
  },
);

/** The report of npm; undefined when it is none. */
function reportIn(text) {
  try {
    const report = JSON.parse(text);
    return report.metadata?.vulnerabilities ? report : undefined;
  } catch {
    return undefined;
  }
}

const report = reportIn(stdout ?? '');
if (!report)
  console.log('audit: NOT DONE. The registry does not answer audits; nothing is known about weaknesses.');
else {
  const { high, critical, total } = report.metadata.vulnerabilities;
  console.log(`audit: ${total} known weaknesses in shipped packages, ${high} high, ${critical} critical`);
  for (const { name, severity, range } of Object.values(report.vulnerabilities ?? {}))
    console.log(`  ${severity}: ${name} ${range}`);
  if (high + critical > 0) process.exitCode = 1;
}
