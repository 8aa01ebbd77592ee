// Opens a state file that waits for room, says so, and migrates it when it is told to: node migrating.ts FILE
import { once } from 'node:events';
import { openDatabase } from '../../src/base/open-database.ts';
import { smallSchema } from './small-schema.ts';

const [file = ''] = process.argv.slice(2);
const database = openDatabase(file, smallSchema(4));
console.log(database.isReadOnly ? 'waits' : 'open');
await once(process.stdin, 'data');
database.reopen();
console.log(database.isReadOnly ? 'waits' : 'open');
setInterval(() => {}, 1 << 30);
