/** What the picturebook world contains: 90 categories of things, and the five styles in which each is drawn. */

export type Group = 'animal' | 'food' | 'vehicle' | 'outdoors' | 'thing'

/** The colours that questions ask for. */
export const colors = ['red', 'orange', 'yellow', 'green', 'blue', 'pink', 'gray', 'white'] as const
export type Color = (typeof colors)[number]

export type Category = {
  name: string // one lower-case English word
  plural: string
  article: 'a' | 'an'
  group: Group
  /** Icon name, the same in all five packages. */
  icon: string
  /** Only where every style agrees on one obvious colour. */
  color?: Color
  /** Where every style shows several colours at once, none of which is the thing's own. */
  severalColors?: true
  /** Drawn twice as often as the others: a world without favourites has no "popular" wrong answers to resist. */
  common: boolean
}

/** Drawing styles. Models learn from all but the last; `twemoji` is kept for tests of unseen drawings. */
export const styles = ['noto', 'noto-v1', 'fluent', 'emojione', 'twemoji'] as const
export type Style = (typeof styles)[number]
export const trainingStyles: readonly Style[] = ['noto', 'noto-v1', 'fluent', 'emojione']
export const heldOutStyle: Style = 'twemoji'

/** All categories. The order is part of every trained model: append, never insert. */
export const categories: readonly Category[] = [
  thing('cat', 'animal', { common: true }),
  thing('dog', 'animal', { icon: 'dog-face', common: true }),
  thing('horse', 'animal', { common: true }),
  thing('cow', 'animal', { severalColors: true }),
  thing('pig', 'animal', { icon: 'pig-face', color: 'pink' }),
  thing('rabbit', 'animal', { icon: 'rabbit-face' }),
  thing('elephant', 'animal', { color: 'gray' }),
  thing('lion', 'animal'),
  thing('fox', 'animal', { plural: 'foxes', color: 'orange' }),
  thing('panda', 'animal'),
  thing('penguin', 'animal', { severalColors: true }),
  thing('owl', 'animal'),
  thing('duck', 'animal', { common: true, severalColors: true }),
  thing('frog', 'animal', { color: 'green' }),
  thing('turtle', 'animal', { color: 'green' }),
  thing('fish', 'animal', { plural: 'fish', common: true }),
  thing('crab', 'animal', { color: 'red' }),
  thing('butterfly', 'animal', { plural: 'butterflies', severalColors: true }),
  thing('bee', 'animal', { icon: 'honeybee', severalColors: true }),

  thing('apple', 'food', { icon: 'red-apple', color: 'red', common: true }),
  thing('banana', 'food', { color: 'yellow', common: true }),
  thing('lemon', 'food', { color: 'yellow' }),
  thing('strawberry', 'food', { plural: 'strawberries', color: 'red' }),
  thing('watermelon', 'food', { severalColors: true }),
  thing('pineapple', 'food', { severalColors: true }),
  thing('pear', 'food', { color: 'green' }),
  thing('carrot', 'food', { color: 'orange' }),
  thing('mushroom', 'food'),
  thing('cake', 'food', { icon: 'birthday-cake', common: true }),
  thing('eggplant', 'food'),

  thing('car', 'vehicle', { icon: 'automobile', color: 'red', common: true }),
  thing('bus', 'vehicle', { plural: 'buses' }),
  thing('bicycle', 'vehicle', { common: true }),
  thing('train', 'vehicle', { icon: 'locomotive', severalColors: true }),
  thing('airplane', 'vehicle'),
  thing('helicopter', 'vehicle'),
  thing('rocket', 'vehicle', { severalColors: true }),
  thing('boat', 'vehicle', { icon: 'sailboat', common: true }),

  thing('house', 'outdoors', { common: true }),
  thing('castle', 'outdoors'),
  thing('tent', 'outdoors'),
  thing('tree', 'outdoors', { icon: 'deciduous-tree', color: 'green', common: true }),
  thing('cactus', 'outdoors', { plural: 'cactuses', color: 'green' }),
  thing('sunflower', 'outdoors', { severalColors: true }),
  thing('sun', 'outdoors', { color: 'yellow', common: true }),
  thing('moon', 'outdoors', { icon: 'crescent-moon', color: 'yellow' }),
  thing('star', 'outdoors', { color: 'yellow' }),
  thing('rainbow', 'outdoors', { severalColors: true }),
  thing('snowman', 'outdoors', { plural: 'snowmen', icon: 'snowman-without-snow', color: 'white' }),

  thing('clock', 'thing', { icon: 'alarm-clock' }),
  thing('book', 'thing', { icon: 'closed-book', color: 'red', common: true }),
  thing('cup', 'thing', { icon: 'hot-beverage' }),
  thing('umbrella', 'thing'),
  thing('hat', 'thing', { icon: 'top-hat' }),
  thing('crown', 'thing', { color: 'yellow' }),
  thing('backpack', 'thing', { color: 'red' }),
  thing('ball', 'thing', { icon: 'soccer-ball', common: true }),
  thing('basketball', 'thing', { color: 'orange' }),
  thing('guitar', 'thing'),
  thing('gift', 'thing', { icon: 'wrapped-gift' }),
  thing('dress', 'thing', { plural: 'dresses', color: 'blue' }),

  thing('bear', 'animal', { common: true }),
  thing('tiger', 'animal', { icon: 'tiger-face' }),
  thing('chicken', 'animal'),
  thing('snake', 'animal', { color: 'green' }),
  thing('snail', 'animal'),
  thing('whale', 'animal', { icon: 'spouting-whale' }),
  thing('octopus', 'animal', { plural: 'octopuses' }),

  thing('cheese', 'food', { icon: 'cheese-wedge' }),
  thing('pizza', 'food', { common: true, severalColors: true }),
  thing('hamburger', 'food', { severalColors: true }),
  thing('doughnut', 'food'),
  thing('pumpkin', 'food', { icon: 'jack-o-lantern', color: 'orange' }),
  thing('lollipop', 'food', { severalColors: true }),

  thing('tractor', 'vehicle'),
  thing('truck', 'vehicle', { icon: 'delivery-truck', common: true }),
  thing('ambulance', 'vehicle'),

  thing('cloud', 'outdoors', { common: true }),
  thing('tulip', 'outdoors', { severalColors: true }),
  thing('volcano', 'outdoors', { plural: 'volcanoes' }),

  thing('bell', 'thing'),
  thing('key', 'thing'),
  thing('camera', 'thing'),
  thing('telephone', 'thing'),
  thing('television', 'thing'),
  thing('drum', 'thing'),
  thing('shoe', 'thing', { icon: 'running-shoe', common: true }),
  thing('shirt', 'thing', { icon: 't-shirt' }),
  thing('balloon', 'thing', { common: true }),
  thing('heart', 'thing', { icon: 'red-heart' }),
]

const byName = new Map(categories.map((category, index) => [category.name, { category, index }]))

/**
 * The category of a name.
 * @throws RangeError for an unknown name
 */
export function categoryNamed(name: string): Category {
  return entry(name).category
}

/**
 * Index of a name in `categories`.
 * @throws RangeError for an unknown name
 */
export function categoryIndex(name: string): number {
  return entry(name).index
}

function entry(name: string): { category: Category; index: number } {
  const found = byName.get(name)
  if (!found) throw new RangeError(`Cannot look up a category: "${name}" is not one of the ${categories.length} names`)
  return found
}

function thing(
  name: string,
  group: Group,
  { plural = `${name}s`, icon = name, common = false, ...colors }: Partial<Category> = {},
): Category {
  const article = /^[aeiou]/.test(name) ? 'an' : 'a'
  return { name, plural, article, group, icon, common, ...colors }
}
