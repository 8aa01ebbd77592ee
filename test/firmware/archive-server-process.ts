// Serves the files of a folder by HTTP. Its arguments are the folder, and a file to which each path that is asked for is appended.
// Beside the folder, a file with the ending `.breaks` has each answer break off. Prints its port.
import { appendFileSync, existsSync, readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';

const [folder = '', asked = ''] = process.argv.slice(2);
const server = createServer((request, response) => {
  const path = request.url ?? '';
  appendFileSync(asked, `${path}\n`);
  const file = join(folder, path);
  if (!existsSync(file)) {
    response.writeHead(404).end();
    return;
  }
  const bytes = readFileSync(file);
  response.writeHead(200, { 'content-length': bytes.length });
  if (existsSync(`${folder}.breaks`)) response.write(bytes.subarray(0, 10), () => response.destroy());
  else response.end(bytes);
});
server.listen(0, '127.0.0.1', () => console.log((server.address() as AddressInfo).port));
