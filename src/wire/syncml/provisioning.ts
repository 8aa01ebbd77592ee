import { SaxesParser } from 'saxes';
import { PosternError } from '../../base/errors.ts';
import { skipDocumentType } from './document-type.ts';
import { utf8 } from './element-builder.ts';
import { readWbxml, type WbxmlName } from './wbxml-reader.ts';

/** Media types of an OMA Client Provisioning document. */
export const ProvisioningMediaType = {
  Xml: 'text/vnd.wap.connectivity-xml',
  Wbxml: 'application/vnd.wap.connectivity-wbxml',
} as const;

/** A characteristic of a provisioning document (OMA Provisioning Content 1.1). */
export interface Characteristic {
  readonly type: string;
  /** Values by name. The value of a parameter without one is empty. */
  readonly parameters: Readonly<Record<string, string>>;
  readonly children: readonly Characteristic[];
}

/** Bounds of one document. `depth` is in levels of nested elements. */
const limits = { bytes: 16 * 1024, elements: 512, depth: 8 } as const;

const publicIds: ReadonlySet<number | string> = new Set([0x0b, 1, '-//WAPFORUM//DTD PROV 1.0//EN']);

interface Open {
  readonly type: string;
  readonly parameters: { [name: string]: string };
  readonly children: Open[];
}

/** Builds the tree of characteristics from the elements that a reader of XML or WBXML finds, in their order. */
class Builder {
  readonly #open: Open[] = [];
  #root: Open | undefined;
  #count = 0;

  open(tag: string, attributes: ReadonlyMap<string, string>): void {
    if (++this.#count > limits.elements || this.#open.length >= limits.depth)
      throw new PosternError('tooLarge', 'provisioning document too deep or of too many elements');
    const parent = this.#open.at(-1);
    if (!parent && (this.#root || tag !== 'wap-provisioningdoc'))
      throw new PosternError('malformed', `<${tag}> is not a provisioning document`);
    const element: Open = { type: attributes.get('type') ?? '', parameters: {}, children: [] };
    if (tag === 'characteristic') parent?.children.push(element);
    const name = attributes.get('name');
    if (tag === 'parm' && parent && name !== undefined)
      parent.parameters[name] = attributes.get('value') ?? '';
    this.#root ??= element;
    this.#open.push(element);
  }

  close(): void {
    this.#open.pop();
  }

  finish(): readonly Characteristic[] {
    if (!this.#root || this.#open.length > 0)
      throw new PosternError('malformed', 'incomplete provisioning document');
    return this.#root.children;
  }
}

/**
 * Reads an OMA Client Provisioning document in XML or WBXML, which its first octet distinguishes. Returns the
 * characteristics of the top level.
 * @throws {PosternError} `malformed`, `tooLarge`, `unsupportedFormat`, `unsupportedVersion`
 */
export function decodeProvisioning(document: Uint8Array): readonly Characteristic[] {
  if (document.length > limits.bytes) throw new PosternError('tooLarge', 'provisioning document too large');
  const builder = new Builder();
  if (document[0] !== undefined && document[0] <= 3) readTokens(document, builder);
  else readXml(utf8(document), builder);
  return builder.finish();
}

function readXml(document: string, builder: Builder): void {
  const parser = new SaxesParser({ xmlns: false, position: false });
  const refuse = (why: string): never => {
    throw new PosternError('malformed', why);
  };
  parser.on('error', (error) => refuse(`XML is not well-formed: ${error.message}`));
  parser.on('doctype', skipDocumentType);
  parser.on('opentag', ({ name, attributes }) =>
    builder.open(name, new Map(Object.entries(attributes).map(([key, value]) => [key, String(value)]))),
  );
  parser.on('closetag', () => builder.close());
  parser.write(document).close();
}

const tags = ['wap-provisioningdoc', 'characteristic', 'parm'];
const firstTag = 0x05;

/**
 * Attributes by code page and token, in decimal. `name=value` is a token that also gives the beginning of the value. Only
 * the attributes that accounts need are listed.
 */
const attributes: Readonly<Record<string, string>> = {
  ...{
    '0 5': 'name',
    '0 6': 'value',
    '0 7': 'name=NAME',
    '0 8': 'name=NAP-ADDRESS',
    '0 9': 'name=NAP-ADDRTYPE',
  },
  ...{ '0 16': 'name=BEARER', '0 17': 'name=NAPID', '0 34': 'name=TO-NAPID', '0 35': 'name=PORTNBR' },
  ...{
    '0 36': 'name=SERVICE',
    '0 69': 'version',
    '0 70': 'version=1.0',
    '0 80': 'type',
    '0 81': 'type=PXLOGICAL',
  },
  ...{ '0 82': 'type=PXPHYSICAL', '0 83': 'type=PORT', '0 84': 'type=VALIDITY', '0 85': 'type=NAPDEF' },
  ...{ '0 86': 'type=BOOTSTRAP', '0 87': 'type=VENDORCONFIG', '0 88': 'type=CLIENTIDENTITY' },
  ...{ '1 5': 'name', '1 6': 'value', '1 7': 'name=NAME', '1 20': 'name=INTERNET', '1 28': 'name=STARTPAGE' },
  ...{ '1 34': 'name=TO-NAPID', '1 35': 'name=PORTNBR', '1 36': 'name=SERVICE', '1 46': 'name=AACCEPT' },
  ...{
    '1 47': 'name=AAUTHDATA',
    '1 48': 'name=AAUTHLEVEL',
    '1 49': 'name=AAUTHNAME',
    '1 50': 'name=AAUTHSECRET',
  },
  ...{ '1 51': 'name=AAUTHTYPE', '1 52': 'name=ADDR', '1 53': 'name=ADDRTYPE', '1 54': 'name=APPID' },
  ...{ '1 55': 'name=APROTOCOL', '1 56': 'name=PROVIDER-ID', '1 57': 'name=TO-PROXY', '1 58': 'name=URI' },
  ...{
    '1 59': 'name=RULE',
    '1 80': 'type',
    '1 83': 'type=PORT',
    '1 85': 'type=APPLICATION',
    '1 86': 'type=APPADDR',
  },
  ...{ '1 87': 'type=APPAUTH', '1 88': 'type=CLIENTIDENTITY', '1 89': 'type=RESOURCE' },
};

/** Values by code page and token, in decimal. Other value tokens do not matter for accounts and are read as empty. */
const values: Readonly<Record<string, string>> = {
  ...{ '0 133': 'IPV4', '0 134': 'IPV6', '0 135': 'E164', '0 136': 'ALPHA', '0 137': 'APN' },
  ...{ '1 134': 'IPV4', '1 135': 'IPV6', '1 136': 'E164', '1 137': 'ALPHA' },
  ...{
    '1 141': 'APPSRV',
    '1 142': 'OBEX',
    '1 144': ',',
    '1 145': 'HTTP-',
    '1 146': 'BASIC',
    '1 147': 'DIGEST',
  },
};

const keyOf = ({ page, token }: WbxmlName): string => `${page} ${token}`;

function readTokens(document: Uint8Array, builder: Builder): void {
  let tag: string | undefined;
  let found = new Map<string, string>();
  /** Opens the element in the builder. Called when all its attributes have been read. */
  const flush = () => {
    if (tag !== undefined) builder.open(tag, found);
    tag = undefined;
    found = new Map();
  };
  readWbxml(document, {
    begin({ publicId }) {
      if (!publicIds.has(publicId))
        throw new PosternError(
          'unsupportedFormat',
          `WBXML with public identifier ${publicId} is not a provisioning document`,
        );
    },
    open({ token, literal }) {
      flush();
      tag = literal ?? tags[token - firstTag] ?? '';
    },
    attribute(name, parts) {
      const [key = '', start = ''] = (name.literal ?? attributes[keyOf(name)] ?? '').split('=');
      const rest = parts.map((part) => (typeof part === 'string' ? part : (values[keyOf(part)] ?? '')));
      found.set(key, start + rest.join(''));
    },
    text: flush,
    octets: flush,
    close() {
      flush();
      builder.close();
    },
  });
}
