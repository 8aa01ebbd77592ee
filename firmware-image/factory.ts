// npm run image:factory: writes the identities of a batch of boards, their labels, and the manifest by which a head-end knows them.
import { join, resolve } from 'node:path';
import { makeBatch, mostBoards, mostDays } from './factory/batch.ts';
import { integerOption, newBatchName } from './factory/identities.ts';
import { runCommand, UsageError } from './recipe/command.ts';
import { root } from './recipe/tools.ts';

const help = `npm run image:factory -- --count N --config FILE [OPTIONS]

Makes the identities of a batch of boards. All boards are flashed with the same image; each then gets files of its own onto its
partition CONFIG.

  --count N      boards, at most ${mostBoards}
  --config FILE  gateway.toml of all boards, with its table [enrolment], but without gateway.id, enrolment.code and
                 enrolment.serial. Files that it names without a folder are taken from beside it
  --site NAME    begins the names of the gateways; gw by default
  --days N       days until the one-time codes end, at most ${mostDays}; 365 by default
  --to FOLDER    folder to be made; by default one in dist/factory

In the folder:

  manifest.json     for the head-end: POST /enrolment-manifests. It has names and hashes of codes, and no secret
  config/SERIAL/    files for the partition CONFIG of one board. They are secret: whoever has them can enrol as this board
  labels/SERIAL.svg label with a QR code of name and serial number; labels.html has all of them, to be printed
  boards.csv        serial number and name of each board
`;
await runCommand({
  help,
  options: {
    count: { type: 'string' },
    config: { type: 'string' },
    site: { type: 'string', default: 'gw' },
    days: { type: 'string', default: '365' },
    to: { type: 'string' },
  },
  run: ({ count, config, site, days, to }) => {
    if (count === undefined || config === undefined)
      throw new UsageError('--count and --config are both required');
    const batch = newBatchName(site);
    const folder = resolve(to ?? join(root, 'dist/factory', batch));
    const made = makeBatch({
      batch,
      site,
      config: resolve(config),
      count: integerOption('--count', count, mostBoards),
      days: integerOption('--days', days, mostDays),
      to: folder,
    });
    console.log(`${made.length} boards: ${folder}
The folder config/ is secret. Give manifest.json to the head-end:
  curl -sS -H @headend.db.token http://127.0.0.1:8080/enrolment-manifests --json @${join(folder, 'manifest.json')}`);
  },
});
