import { interior, leaf, type ManagementObject } from '../wire/syncml/ddf.ts';
import { serverCreated, serverWritten, zeroOrMore, zeroOrOne } from './occurrence-and-access.ts';
import { ownVocabulary } from './vocabulary.ts';

/**
 * URI scheme for an image of this inventory, followed by the name of its node. A value of a fan-out may have this form,
 * and so may the URL of an update package of the gateway.
 */
export const imageScheme = 'gw-image:';

/** States of an image. */
export const ImageState = { Idle: 0, Coming: 1, Ready: 2, Failed: 3, Evicted: 4 } as const;

/**
 * GwImageInventory: software and configuration that the gateway keeps for its devices. Name and nodes are proposed
 * (docs/gwmo.md).
 */
export const gwImageInventory: ManagementObject = {
  id: ownVocabulary.objects.GwImageInventory,
  root: interior(['Get'], 'Images that the gateway keeps for its End Devices', {
    Images: interior(['Get'], 'Images that the DM server created', {
      '*': interior(
        serverCreated,
        'An image. A fan-out refers to it by `gw-image:NAME`',
        {
          ID: leaf('chr', serverWritten, 'Identifier of the software', zeroOrOne),
          Name: leaf('chr', serverWritten, 'Display name', zeroOrOne),
          Version: leaf('chr', serverWritten, 'Version of the software', zeroOrOne),
          Type: leaf('chr', serverWritten, 'Media type. Default application/octet-stream', zeroOrOne),
          PkgURL: leaf(
            'chr',
            serverWritten,
            'URL from which the gateway downloads the image, HTTP or HTTPS',
            zeroOrOne,
          ),
          PkgData: leaf('bin', ['Add', 'Replace'], 'The image itself, instead of a URL', zeroOrOne),
          Hash: leaf(
            'chr',
            serverWritten,
            'SHA-256 in hexadecimal. An image with another digest is refused',
            zeroOrOne,
          ),
          Signature: leaf(
            'chr',
            serverWritten,
            'Base64 of a signature over the 32 octets of the SHA-256',
            zeroOrOne,
          ),
          DropEarlier: leaf(
            'bool',
            serverWritten,
            'true: the earlier version may be deleted for a new one when both do not fit. Default false',
            zeroOrOne,
          ),
          Size: leaf('int', ['Get'], 'Size in bytes. 0 while it is unknown'),
          Received: leaf('int', ['Get'], 'Bytes received so far'),
          State: leaf(
            'int',
            ['Get'],
            '0: idle, 1: downloading, 2: ready, 3: failed, without an earlier version, 4: evicted',
          ),
          Result: leaf('int', ['Get'], 'FUMO result code of the last operation'),
          Reason: leaf('chr', ['Get'], 'Why the last operation failed. Empty when it did not fail'),
          LocalURL: leaf('chr', ['Get'], 'Path from which devices get the image over CoAP'),
          Operations: interior(['Get'], 'Operations on the image', {
            Download: leaf('null', ['Exec', 'Get'], 'Downloads the image. An alert reports the outcome'),
            Remove: leaf('null', ['Exec', 'Get'], 'Deletes the data of the image. The other nodes stay'),
          }),
        },
        zeroOrMore,
      ),
    }),
    Quota: leaf('int', ['Get'], 'Bytes that all images together may take'),
    Used: leaf('int', ['Get'], 'Bytes that all images together take'),
  }),
};

/** Nodes of an image that the gateway answers itself. Every image has them as soon as it exists. */
export const liveImageNodes = [
  'Size',
  'Received',
  'State',
  'Result',
  'Reason',
  'LocalURL',
  'Operations',
] as const;
