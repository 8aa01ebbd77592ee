import { interior, leaf, type ManagementObject } from '../wire/syncml/ddf.ts';
import { serverCreated, serverWritten, zeroOrMore, zeroOrOne } from './occurrence-and-access.ts';
import { ownVocabulary } from './vocabulary.ts';

/** How an image stands. */
/** What stands for the place of an image, and its name behind it: in a command, or as the URL of a package. */
export const imageScheme = 'gw-image:';

export const ImageState = { Idle: 0, Coming: 1, Ready: 2, Failed: 3, Evicted: 4 } as const;

/** GwImageInventory: software and configuration that the gateway keeps for its devices. The name is GwMO's; the nodes are proposed (docs/gwmo.md). */
export const gwImageInventory: ManagementObject = {
  id: ownVocabulary.objects.GwImageInventory,
  root: interior(['Get'], 'Images that the gateway keeps for its End Devices', {
    Images: interior(['Get'], 'Images that the DM server made known', {
      '*': interior(
        serverCreated,
        'An image. Its name stands for it in a fan-out, as `gw-image:NAME`',
        {
          ID: leaf('chr', serverWritten, 'Identifier of the software', zeroOrOne),
          Name: leaf('chr', serverWritten, 'What people call it by', zeroOrOne),
          Version: leaf('chr', serverWritten, 'Its version', zeroOrOne),
          Type: leaf('chr', serverWritten, 'Media type; application/octet-stream', zeroOrOne),
          PkgURL: leaf('chr', serverWritten, 'Where the gateway gets it, over HTTP or HTTPS', zeroOrOne),
          PkgData: leaf('bin', ['Add', 'Replace'], 'The image itself, instead of a URL', zeroOrOne),
          Hash: leaf('chr', serverWritten, 'SHA-256 in hexadecimal; what differs is refused', zeroOrOne),
          Signature: leaf(
            'chr',
            serverWritten,
            'Base64 of a signature over the 32 octets of the SHA-256',
            zeroOrOne,
          ),
          Size: leaf('int', ['Get'], 'Bytes, as far as they are known'),
          Received: leaf('int', ['Get'], 'Bytes that are there'),
          State: leaf('int', ['Get'], '0: idle, 1: coming, 2: ready, 3: failed, with no image, 4: evicted'),
          Result: leaf('int', ['Get'], 'What the last operation came to, as a result code of FUMO'),
          Reason: leaf('chr', ['Get'], 'Why the last operation failed; empty when it did not'),
          LocalURL: leaf('chr', ['Get'], 'Path from which devices get it over CoAP'),
          Operations: interior(['Get'], 'What can be done with it', {
            Download: leaf('null', ['Exec', 'Get'], 'Gets it; the outcome comes by alert'),
            Remove: leaf('null', ['Exec', 'Get'], 'Frees its room; what is known of it stays'),
          }),
        },
        zeroOrMore,
      ),
    }),
    Quota: leaf('int', ['Get'], 'Bytes that images may take'),
    Used: leaf('int', ['Get'], 'Bytes that they take'),
  }),
};

/** Nodes of an image that the gateway answers itself. */
export const liveImageNodes = [
  'Size',
  'Received',
  'State',
  'Result',
  'Reason',
  'LocalURL',
  'Operations',
] as const;
