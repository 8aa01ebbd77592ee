/** Kind of an element's content: elements, text, nothing (the presence of the element is its meaning), or octets. */
export type ElementKind = 'container' | 'text' | 'flag' | 'bytes';

interface ElementRule {
  /** WBXML code page: 0 for SyncML, 1 for meta information. */
  readonly page: 0 | 1;
  /** WBXML tag token (SyncML representation protocol 1.2, DTD appendix; meta information DTD for page 1). */
  readonly token: number;
  readonly kind: ElementKind;
}

const rule = (page: 0 | 1, token: number, kind: ElementKind): ElementRule => ({ page, token, kind });

/** Every element of a DM message, by its XML name: its WBXML token, from which its CBOR key is derived, and its kind. */
export const elements = {
  Add: rule(0, 0x05, 'container'),
  Alert: rule(0, 0x06, 'container'),
  Archive: rule(0, 0x07, 'flag'),
  Atomic: rule(0, 0x08, 'container'),
  Chal: rule(0, 0x09, 'container'),
  Cmd: rule(0, 0x0a, 'text'),
  CmdID: rule(0, 0x0b, 'text'),
  CmdRef: rule(0, 0x0c, 'text'),
  Copy: rule(0, 0x0d, 'container'),
  Cred: rule(0, 0x0e, 'container'),
  Data: rule(0, 0x0f, 'text'),
  Delete: rule(0, 0x10, 'container'),
  Exec: rule(0, 0x11, 'container'),
  Final: rule(0, 0x12, 'flag'),
  Get: rule(0, 0x13, 'container'),
  Item: rule(0, 0x14, 'container'),
  Lang: rule(0, 0x15, 'text'),
  LocName: rule(0, 0x16, 'text'),
  LocURI: rule(0, 0x17, 'text'),
  Map: rule(0, 0x18, 'container'),
  MapItem: rule(0, 0x19, 'container'),
  Meta: rule(0, 0x1a, 'container'),
  MsgID: rule(0, 0x1b, 'text'),
  MsgRef: rule(0, 0x1c, 'text'),
  NoResp: rule(0, 0x1d, 'flag'),
  NoResults: rule(0, 0x1e, 'flag'),
  Put: rule(0, 0x1f, 'container'),
  Replace: rule(0, 0x20, 'container'),
  RespURI: rule(0, 0x21, 'text'),
  Results: rule(0, 0x22, 'container'),
  Search: rule(0, 0x23, 'container'),
  Sequence: rule(0, 0x24, 'container'),
  SessionID: rule(0, 0x25, 'text'),
  SftDel: rule(0, 0x26, 'flag'),
  Source: rule(0, 0x27, 'container'),
  SourceRef: rule(0, 0x28, 'text'),
  Status: rule(0, 0x29, 'container'),
  Sync: rule(0, 0x2a, 'container'),
  SyncBody: rule(0, 0x2b, 'container'),
  SyncHdr: rule(0, 0x2c, 'container'),
  SyncML: rule(0, 0x2d, 'container'),
  Target: rule(0, 0x2e, 'container'),
  TargetRef: rule(0, 0x2f, 'text'),
  VerDTD: rule(0, 0x31, 'text'),
  VerProto: rule(0, 0x32, 'text'),
  NumberOfChanges: rule(0, 0x33, 'text'),
  MoreData: rule(0, 0x34, 'flag'),
  Field: rule(0, 0x35, 'container'),
  Filter: rule(0, 0x36, 'container'),
  Record: rule(0, 0x37, 'container'),
  FilterType: rule(0, 0x38, 'text'),
  SourceParent: rule(0, 0x39, 'container'),
  TargetParent: rule(0, 0x3a, 'container'),
  Move: rule(0, 0x3b, 'container'),
  Correlator: rule(0, 0x3c, 'text'),
  Anchor: rule(1, 0x05, 'container'),
  EMI: rule(1, 0x06, 'text'),
  Format: rule(1, 0x07, 'text'),
  FreeID: rule(1, 0x08, 'text'),
  FreeMem: rule(1, 0x09, 'text'),
  Last: rule(1, 0x0a, 'text'),
  Mark: rule(1, 0x0b, 'text'),
  MaxMsgSize: rule(1, 0x0c, 'text'),
  Mem: rule(1, 0x0d, 'container'),
  MetInf: rule(1, 0x0e, 'container'),
  Next: rule(1, 0x0f, 'text'),
  NextNonce: rule(1, 0x10, 'bytes'),
  SharedMem: rule(1, 0x11, 'flag'),
  Size: rule(1, 0x12, 'text'),
  Type: rule(1, 0x13, 'text'),
  Version: rule(1, 0x14, 'text'),
  MaxObjSize: rule(1, 0x15, 'text'),
  FieldLevel: rule(1, 0x16, 'flag'),
} as const satisfies Record<string, ElementRule>;

export type ElementName = keyof typeof elements;

/** XML namespaces by code page. */
export const namespaces = ['SYNCML:SYNCML1.2', 'syncml:metinf'] as const;

/** Elements of a container, text, octets, or `true` for a flag. */
export type Content = readonly Element[] | string | Uint8Array | true;

/** An element with its content. This is the form that all codecs read and write. */
export interface Element {
  readonly name: ElementName;
  readonly content: Content;
}

/**
 * Content of a Data that has characters which its coding cannot hold. Nobody knows what its sender meant. The command gets a status
 * for this item, and the rest of the message counts.
 */
export const unreadable: Uint8Array = new Uint8Array(0);

const elementNames: ReadonlySet<string> = new Set(Object.keys(elements));

/** Whether the name is that of an element that DM knows. */
export const isElementName = (name: string): name is ElementName => elementNames.has(name);

/** CBOR key for a WBXML token: the token, plus 64 on page 1. */
export const keyOfToken = (page: number, token: number): number => page * 64 + token;

/** CBOR key of an element. */
export const keyOf = (name: ElementName): number => keyOfToken(elements[name].page, elements[name].token);

const names = new Map((Object.keys(elements) as ElementName[]).map((name) => [keyOf(name), name]));

/** Element with this CBOR key. `undefined` for an unknown key. */
export const nameOfKey = (key: number): ElementName | undefined => names.get(key);

/** Bounds of a message, in every coding. */
export const messageLimits = {
  /** Bytes of one coded message. */
  bytes: 256 * 1024,
  /** Levels of nested elements. */
  depth: 16,
  /** Elements of one message. */
  elements: 8192,
  /** Characters of one text, or octets of one value. */
  value: 128 * 1024,
  /** Commands of one message, including those inside Atomic and Sequence. */
  commands: 1024,
  /** Characters of a SessionID, and of a RespURI. Both are remembered beyond the message. */
  sessionId: 64,
  respUri: 2048,
} as const;

/**
 * Whether the media type is that of a WBXML document inside a message, such as a TNDS object. The data of such an item
 * is octets in every coding of the message.
 */
export const isPacked = (type: string | undefined): boolean => type?.endsWith('+wbxml') ?? false;
