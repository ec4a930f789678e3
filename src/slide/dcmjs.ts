/** dcmjs: the values of attributes, and the standard's dictionary of them (PS3.6 §6). */

import { formatTag } from "./dicom_elements.ts";

/** Attributes by tag, such as "00280010", as dcmjs gives them. */
export interface Attributes {
  readonly [tag: string]: Attribute;
}

export interface Attribute {
  readonly vr: string;
  readonly Value?: readonly unknown[];
}

/** What is used of dcmjs, which has no types. */
interface DcmJs {
  readonly data: {
    readonly DicomMessage: {
      readFile(file: ArrayBuffer): { readonly dict: Attributes };
    };
    readonly DicomMetaDictionary: {
      readonly dictionary: Readonly<
        Record<string, { readonly name: string; readonly vr: string } | undefined>
      >;
    };
  };
  readonly log: {
    setLevel(level: string, persist: boolean): void;
    getLogger(name: string): { setLevel(level: string, persist: boolean): void };
  };
}

let loaded: Promise<DcmJs> | undefined;

/** Imported when a DICOM file is met: it takes 100 ms. */
export function loadDcmJs(): Promise<DcmJs> {
  return loaded ??= import("dcmjs").then((module) => {
    const dcmjs = module.default as DcmJs;
    // It prints values that it does not like.
    dcmjs.log.setLevel("silent", false);
    dcmjs.log.getLogger("validation.dcmjs").setLevel("silent", false);
    return dcmjs;
  });
}

/** The standard's keywords and value representations (PS3.6 §6) of tags. */
export interface Dictionary {
  /** Undefined where the standard has none. */
  nameOf(tag: number): string | undefined;
  /** Empty where the standard has none. */
  vrOf(tag: number): string;
}

export async function loadDictionary(): Promise<Dictionary> {
  const { dictionary } = (await loadDcmJs()).data.DicomMetaDictionary;
  return {
    nameOf: (tag) => dictionary[formatTag(tag)]?.name.replace(/^RETIRED_/, ""),
    vrOf: (tag) => dictionary[formatTag(tag)]?.vr ?? "",
  };
}
